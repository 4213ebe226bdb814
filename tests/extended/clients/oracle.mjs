// google-auth-library with the environment's credential file. Prints an access token or an ID token.
import { readFileSync } from 'node:fs';
import { GoogleAuth } from 'google-auth-library';

const [what, audience] = process.argv.slice(2);
const scopes = ['https://www.googleapis.com/auth/cloud-platform'];
const { type } = JSON.parse(readFileSync(process.env.GOOGLE_APPLICATION_CREDENTIALS));
// With scopes, a key file's assertion has both, which the endpoint refuses. The source of an impersonation needs scopes.
const auth = new GoogleAuth(what === 'id' && type === 'service_account' ? {} : { scopes });
if (what === 'id') {
  const client = await auth.getIdTokenClient(audience);
  const headers = await client.getRequestHeaders();
  const value = headers.get ? headers.get('authorization') : headers.Authorization;
  console.log(value.replace('Bearer ', ''));
} else {
  const client = await auth.getClient();
  const { token } = await client.getAccessToken();
  console.log(token);
}
