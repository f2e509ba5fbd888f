"""Key services and key formats of others: age, PKCS#11 tokens, AWS KMS. Each needs its extra; all are key providers.

:func:`stanch.crypto.recipient.parse_recipient` and :func:`stanch.crypto.identity.load_identity` find the right one.
"""
