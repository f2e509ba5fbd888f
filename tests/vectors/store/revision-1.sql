-- The schema of revision 1 on SQLite, as stanch 0.1.0 made it. Never to be changed.
CREATE TABLE act_lease (
	act TEXT NOT NULL,
	host TEXT NOT NULL,
	pid INTEGER NOT NULL,
	until_ms INTEGER NOT NULL,
	PRIMARY KEY (act)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE approval (
	request_digest TEXT NOT NULL,
	principal TEXT NOT NULL,
	key_id TEXT NOT NULL,
	statement BLOB NOT NULL,
	signature BLOB NOT NULL,
	expires_ms INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	consumed_by TEXT,
	PRIMARY KEY (request_digest, principal),
	FOREIGN KEY(principal) REFERENCES principal (id)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE credential (
	id TEXT NOT NULL,
	principal TEXT NOT NULL,
	kind TEXT NOT NULL,
	public BLOB NOT NULL,
	not_before_ms INTEGER NOT NULL,
	expires_ms INTEGER,
	revoked_ms INTEGER,
	PRIMARY KEY (id),
	FOREIGN KEY(principal) REFERENCES principal (id)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE grant_ (
	id TEXT NOT NULL,
	principal TEXT NOT NULL,
	role TEXT NOT NULL,
	scope TEXT NOT NULL,
	not_before_ms INTEGER NOT NULL,
	expires_ms INTEGER,
	revoked_ms INTEGER,
	granted_by TEXT NOT NULL,
	reason_commitment TEXT,
	PRIMARY KEY (id),
	FOREIGN KEY(principal) REFERENCES principal (id)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_checkpoint (
	origin TEXT NOT NULL,
	size INTEGER NOT NULL,
	root BLOB NOT NULL,
	note BLOB NOT NULL,
	created_ms INTEGER NOT NULL,
	published INTEGER NOT NULL,
	PRIMARY KEY (origin, size)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_entry (
	origin TEXT NOT NULL,
	idx INTEGER NOT NULL,
	data BLOB NOT NULL,
	leaf_hash BLOB NOT NULL,
	PRIMARY KEY (origin, idx),
	CHECK (length(leaf_hash) = 32)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_index (
	origin TEXT NOT NULL,
	idx INTEGER NOT NULL,
	act TEXT NOT NULL,
	phase TEXT NOT NULL,
	kind TEXT NOT NULL,
	principal TEXT NOT NULL,
	time_ms INTEGER NOT NULL,
	status INTEGER NOT NULL,
	PRIMARY KEY (origin, idx)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_log (
	origin TEXT NOT NULL,
	size INTEGER NOT NULL,
	frontier BLOB NOT NULL,
	key_id TEXT NOT NULL,
	updated_ms INTEGER NOT NULL,
	PRIMARY KEY (origin)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_opening (
	commitment TEXT NOT NULL,
	field TEXT NOT NULL,
	salt BLOB NOT NULL,
	value TEXT NOT NULL,
	principal TEXT NOT NULL,
	retain_until_ms INTEGER,
	PRIMARY KEY (commitment)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE ledger_subject (
	origin TEXT NOT NULL,
	idx INTEGER NOT NULL,
	digest TEXT NOT NULL,
	PRIMARY KEY (origin, idx, digest)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE principal (
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	issuer TEXT,
	subject TEXT,
	display TEXT,
	clearance INTEGER NOT NULL,
	suspended INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (issuer, subject)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE resource (
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	digest TEXT NOT NULL,
	sensitivity INTEGER NOT NULL,
	quarantined INTEGER NOT NULL,
	gate TEXT NOT NULL,
	legal_hold INTEGER NOT NULL,
	made_by TEXT NOT NULL,
	PRIMARY KEY (kind, name, digest)
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE schema_revision (
	revision INTEGER NOT NULL,
	PRIMARY KEY (revision)
)
 WITHOUT ROWID,
 STRICT;
INSERT INTO schema_revision VALUES (1);
CREATE TRIGGER ledger_entry_no_update BEFORE UPDATE ON ledger_entry BEGIN SELECT RAISE(ABORT, 'ledger_entry is append only'); END;
CREATE TRIGGER ledger_entry_no_delete BEFORE DELETE ON ledger_entry BEGIN SELECT RAISE(ABORT, 'ledger_entry is append only'); END;
CREATE INDEX ledger_index_kind ON ledger_index (origin, kind, time_ms);
CREATE INDEX ledger_index_principal ON ledger_index (origin, principal, time_ms);
CREATE INDEX ledger_index_act ON ledger_index (origin, act);
CREATE INDEX ledger_subject_digest ON ledger_subject (origin, digest, idx);
CREATE INDEX grant_principal ON grant_ (principal);
