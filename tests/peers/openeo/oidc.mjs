// Local OIDC issuer (npm oauth2-mock-server@8): client_credentials, password, authorization_code(+PKCE), refresh_token.
//   TTL=3 PORT=8090 node oidc.mjs      issuer http://127.0.0.1:8090 ; probe /.well-known/openid-configuration
import { exportJWK, generateKeyPair } from 'jose';
import { OAuth2Server } from 'oauth2-mock-server';
const port = +(process.env.PORT || 8090), ttl = +(process.env.TTL || 3600);
const s = new OAuth2Server();
const { privateKey } = await generateKeyPair('RS256', { extractable: true });
await s.issuer.keys.add({ ...(await exportJWK(privateKey)), kid: 'k1', alg: 'RS256', use: 'sig' });  // openeo-fastapi wants "use"
await s.start(port, '127.0.0.1');
s.issuer.url = `http://127.0.0.1:${port}`;
s.service.on('beforeTokenSigning', (t) => { t.payload.exp = Math.floor(Date.now() / 1000) + ttl; t.payload.jti = Math.random().toString(36); });
s.service.on('beforeResponse', (r, req) => { r.body.expires_in = ttl; r.body.refresh_token ??= 'rt-' + Math.random().toString(36); console.log('token', req.body?.grant_type); });
console.log('ready', s.issuer.url);
