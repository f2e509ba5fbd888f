// An OpenID provider on loopback: people sign in with any name (its own development pages), and one service gets
// access tokens in the form of RFC 9068, for the audience that it names. Usage: node server.mjs PORT REDIRECT_URI
import Provider from 'oidc-provider';

const [port, redirectUri] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'console', client_secret: 'a secret of the tests', redirect_uris: [redirectUri],
      grant_types: ['authorization_code'], response_types: ['code'], token_endpoint_auth_method: 'client_secret_basic',
    },
    {
      client_id: 'service', client_secret: 'another secret', redirect_uris: [], response_types: [],
      grant_types: ['client_credentials'], token_endpoint_auth_method: 'client_secret_post',
    },
  ],
  claims: { openid: ['sub', 'amr'] },
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, audience) => ({ scope: '', audience, accessTokenFormat: 'jwt', accessTokenTTL: 300 }),
    },
  },
  cookies: { keys: ['only for tests'] },
});

// Whoever signs in has used a second factor if MFA is set.
const finished = provider.interactionFinished.bind(provider);
provider.interactionFinished = (request, response, result, options) => {
  if (process.env.MFA && result.login) result.login.amr = ['pwd', 'mfa'];
  return finished(request, response, result, options);
};

provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
