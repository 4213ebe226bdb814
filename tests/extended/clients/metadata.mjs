// Application Default Credentials from a metadata server: account, access token, ID token for the first argument.
import { GoogleAuth } from "google-auth-library";

const auth = new GoogleAuth({ scopes: ["https://www.googleapis.com/auth/devstorage.read_only"] });
const { client_email: email } = await auth.getCredentials();
const access = await auth.getAccessToken();
const client = await auth.getIdTokenClient(process.argv[2]);
const token = await client.idTokenProvider.fetchIdToken(process.argv[2]);
console.log(JSON.stringify([email, access, token]));
