// OIDC issuer with device-code flow (npm oidc-provider@8, certified implementation). PORT=8091 TTL=5 node device.mjs
import { Provider } from 'oidc-provider';
const port = +(process.env.PORT || 8091), ttl = +(process.env.TTL || 3600);
const p = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: 'dev', token_endpoint_auth_method: 'none', grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'], redirect_uris: [], response_types: [], application_type: 'native' },
            { client_id: 'cid', client_secret: 'sec', token_endpoint_auth_method: 'client_secret_post', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true }, clientCredentials: { enabled: true } },
  scopes: ['openid', 'offline_access'], ttl: { AccessToken: ttl, ClientCredentials: ttl, DeviceCode: 600 },
  issueRefreshToken: async () => true, cookies: { keys: ['k'] },
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});
p.on('grant.success', (ctx) => console.log('granted', ctx.oidc.params.grant_type));
p.listen(port, '127.0.0.1', () => console.log('ready'));
