// An identity provider (panva/oidc-provider) for the tests of signing in: node provider.mjs PORT REDIRECT_URL
//
// Whoever signs in is believed to be who they say. `ana` is in the groups that the tests give roles to, `guest` is in
// none of them. The ID tokens of some accounts are made anew with the provider's own key, wrong in one thing each.

import { Provider } from "oidc-provider";
import { SignJWT, decodeJwt, exportJWK, generateKeyPair, importJWK } from "jose";

const [port, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const pair = await generateKeyPair("RS256", { extractable: true });
const jwk = { ...(await exportJWK(pair.privateKey)), kid: "one", alg: "RS256", use: "sig" };
const stranger = (await generateKeyPair("RS256")).privateKey;
const ours = await importJWK(jwk, "RS256");

const PEOPLE = {
    ana: { email: "ana@example.com", email_verified: true, groups: ["staff", "sre"] },
    ben: { email: "ana@example.com", email_verified: false, groups: ["prompts-support"] },
    guest: { email: "guest@example.com", email_verified: true, groups: ["visitors"] },
    nobody: { email: "nobody@example.com", email_verified: true },
};

const provider = new Provider(issuer, {
    clients: [
        {
            client_id: "serin",
            client_secret: "a-secret-of-the-tests",
            redirect_uris: [redirect],
            grant_types: ["authorization_code"],
            response_types: ["code"],
        },
    ],
    jwks: { keys: [jwk] },
    cookies: { keys: ["only-for-tests"] },
    pkce: { required: () => true },
    scopes: ["openid", "profile", "email", "groups"],
    claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
    features: { devInteractions: { enabled: true }, userinfo: { enabled: true } },
    async findAccount(_ctx, id) {
        const about = PEOPLE[id] ?? PEOPLE.ana;
        return { accountId: id, claims: async () => ({ sub: id, ...about }) };
    },
});

// What is wrong with the ID token of an account.
const WRONG = {
    "wrong-audience": (claims) => ({ ...claims, aud: "another-app" }),
    "wrong-issuer": (claims) => ({ ...claims, iss: "http://127.0.0.1:9" }),
    "wrong-nonce": (claims) => ({ ...claims, nonce: "of-another-sign-in" }),
    expired: (claims) => ({ ...claims, iat: claims.iat - 7200, exp: claims.iat - 3600 }),
    "wrong-key": (claims) => claims,
};

provider.use(async (ctx, next) => {
    await next();
    if (ctx.path !== "/token" || !ctx.body?.id_token) return;
    const claims = decodeJwt(ctx.body.id_token);
    const spoil = WRONG[claims.sub];
    if (!spoil) return;
    const key = claims.sub === "wrong-key" ? stranger : ours;
    const token = new SignJWT(spoil(claims)).setProtectedHeader({ alg: "RS256", kid: "one" });
    ctx.body = { ...ctx.body, id_token: await token.sign(key) };
});

provider.listen(Number(port), "127.0.0.1", () => console.log(`ready at ${issuer}`));
