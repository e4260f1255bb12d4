//! Talking to the provider: what it says about itself, its tokens, and what they prove.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openidconnect::core::{
    CoreClient, CoreClientAuthMethod, CoreGenderClaim, CoreIdToken, CoreProviderMetadata, CoreResponseType,
};
use openidconnect::{
    AccessToken, AccessTokenHash, AdditionalClaims, AsyncHttpClient, AuthType, AuthenticationFlow,
    AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, DiscoveryError,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    SignatureVerificationError, SubjectIdentifier, TokenResponse as _, UserInfoClaims, UserInfoError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_core::units::{HoldFor, Timestamp};
use tokio::sync::Mutex;

use super::attempts::{Attempt, Attempts, NotOurs};
use super::claims::{self, Claims};
use super::{Begun, OidcCounts, OidcSettings, Person, Returned, SignInError};
use crate::auth::{base32, random};
use crate::errors::root_cause;
use crate::trust::{self, Offer};

/// The largest answer of a provider, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;
/// How long one request to the provider may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long what a provider says about itself is good.
const KNOWN_FOR: HoldFor = HoldFor::from_hours(1);
/// After a failure, and after a look for a new key, the provider is left alone for so long.
const LEFT_ALONE: HoldFor = HoldFor::from_secs(5);
/// The longest text of a provider that is shown, in characters.
const LONGEST_SHOWN: usize = 300;

type Ready = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Signs people in with one provider.
pub struct Oidc {
    settings: OidcSettings,
    http: Http,
    known: Mutex<Known>,
    attempts: Attempts,
    counts: OidcCounts,
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is known of the provider.
#[derive(Default)]
struct Known {
    client: Option<(Timestamp, Arc<Ready>)>,
    failed: Option<(Timestamp, SignInError)>,
}

impl Oidc {
    /// Signs people in as the settings say; the provider is asked at the first sign-in.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: OidcSettings) -> std::io::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = trust::https(settings.roots.as_ref(), Offer::Http1, http)?;
        let http = Http(Client::builder(TokioExecutor::new()).build(connector));
        let (known, attempts, counts) = (Mutex::default(), Attempts::default(), OidcCounts::default());
        Ok(Self { settings, http, known, attempts, counts })
    }

    /// What the settings say.
    pub fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// What is counted.
    pub fn counts(&self) -> &OidcCounts {
        &self.counts
    }

    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`SignInError`] when the provider does not answer, or not as it should.
    pub async fn begin(&self, now: Timestamp) -> Result<Begun, SignInError> {
        let client = self.client(now, KNOWN_FOR).await.inspect_err(|error| self.count(error))?;
        let [state, nonce, verifier, browser] = [(); 4].map(|()| base32(&random()));
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.clone()));
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (token, for_token) = (CsrfToken::new(state.clone()), Nonce::new(nonce.clone()));
        let request = client.authorize_url(flow, move || token, move || for_token);
        let scopes = self.settings.scopes.iter().cloned().map(Scope::new);
        let (url, _, _) = request.add_scopes(scopes).set_pkce_challenge(challenge).url();
        let browser_hash = blake3::hash(browser.as_bytes());
        let attempt = Attempt { browser: browser_hash, nonce, verifier, begun_at: now };
        if self.attempts.begin(&state, attempt) {
            self.counts.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        Ok(Begun { go_to: url.into(), browser })
    }

    /// Ends a sign-in: whoever the provider signed in, with what they may do here.
    ///
    /// # Errors
    /// [`SignInError`] tells why nobody is signed in.
    pub async fn finish(
        &self,
        returned: Returned,
        browser: Option<&str>,
        now: Timestamp,
    ) -> Result<Person, SignInError> {
        let person = self.person(returned, browser, now).await.inspect_err(|error| self.count(error))?;
        self.counts.signed_in.fetch_add(1, Ordering::Relaxed);
        Ok(person)
    }

    async fn person(
        &self,
        returned: Returned,
        browser: Option<&str>,
        now: Timestamp,
    ) -> Result<Person, SignInError> {
        let attempt = self.attempts.take(&returned.state, browser, now).map_err(|error| match error {
            NotOurs::NotUnderWay => SignInError::NotUnderWay,
            NotOurs::OtherBrowser => SignInError::OtherBrowser,
        })?;
        if let Some(found) = returned.issuer.filter(|found| *found != self.settings.issuer) {
            return Err(SignInError::OtherIssuer { issuer: self.issuer(), found: shown(&found) });
        }
        let code = match (returned.error, returned.code) {
            (None, Some(code)) => AuthorizationCode::new(code),
            (error, _) => {
                let error = error.map_or_else(|| "the answer has no code".to_owned(), |error| shown(&error));
                let description = returned.error_description.map(|text| shown(&text));
                return Err(SignInError::Denied { issuer: self.issuer(), error, description });
            }
        };
        let client = self.client(now, KNOWN_FOR).await?;
        let verifier = PkceCodeVerifier::new(attempt.verifier);
        let exchange = client.exchange_code(code).map_err(|error| self.unusable(&error))?;
        let exchanged = exchange.set_pkce_verifier(verifier).request_async(&self.http).await;
        let tokens = exchanged.map_err(|error| match error {
            RequestTokenError::Request(why) => self.unreachable(&why),
            RequestTokenError::ServerResponse(answer) => {
                SignInError::CodeRefused { issuer: self.issuer(), why: shown(&answer.to_string()) }
            }
            error @ (RequestTokenError::Parse(..) | RequestTokenError::Other(_)) => {
                self.not_proven(&error.to_string())
            }
        })?;
        let id_token = tokens.id_token().ok_or_else(|| self.not_proven("the answer has no ID token"))?;
        let nonce = Nonce::new(attempt.nonce);
        let access_token = tokens.access_token();
        let verified = verified(&client, id_token, access_token, &nonce, now);
        let verified = match verified {
            // The provider may have a new key since it was asked.
            Err(NotProven::UnknownKey) => {
                let client = self.client(now, LEFT_ALONE).await?;
                self::verified(&client, id_token, access_token, &nonce, now)
            }
            verified => verified,
        };
        let (subject, mut claims) = verified.map_err(|why| self.not_proven(&why.to_string()))?;
        if claims::lacks(&claims, &self.settings) {
            let further = self.user_info(&client, access_token.clone(), subject.clone()).await?;
            for (name, value) in further {
                claims.entry(name).or_insert(value);
            }
        }
        self.known_here(&claims, subject.as_str())
    }

    /// Whoever a subject is here.
    fn known_here(&self, claims: &Claims, subject: &str) -> Result<Person, SignInError> {
        let OidcSettings { claim, name_claim, roles, .. } = &self.settings;
        let name = shown(&claims::name(claims, name_claim, subject));
        let values = claims::values(claims, claim);
        match claims::grant(roles, values.as_deref().unwrap_or_default()) {
            Some(grant) => Ok(Person { name, id: format!("oidc:{}", shown(subject)), grant }),
            None => {
                let named = |values: Vec<String>| {
                    claims::named(values).iter().map(|value| shown(value)).collect::<Vec<_>>()
                };
                let (issuer, claim) = (self.issuer(), claim.clone());
                Err(SignInError::NoRole { name, issuer, claim, found: values.map(named) })
            }
        }
    }

    /// What the provider says of somebody besides the ID token; nothing where it says nothing.
    async fn user_info(
        &self,
        client: &Ready,
        access_token: AccessToken,
        subject: SubjectIdentifier,
    ) -> Result<Claims, SignInError> {
        let Ok(request) = client.user_info(access_token, Some(subject)) else { return Ok(Claims::new()) };
        let answer = request.request_async::<Anything, _, CoreGenderClaim>(&self.http).await;
        let claims: UserInfoClaims<Anything, CoreGenderClaim> = answer.map_err(|error| match error {
            UserInfoError::Request(why) => self.unreachable(&why),
            error => self.not_proven(&format!("the user info does not go with it: {error}")),
        })?;
        match serde_json::to_value(&claims) {
            Ok(Value::Object(claims)) => Ok(claims),
            Ok(_) | Err(_) => Ok(Claims::new()),
        }
    }

    /// The client of the provider, from what it said about itself no longer ago than `age`.
    async fn client(&self, now: Timestamp, age: HoldFor) -> Result<Arc<Ready>, SignInError> {
        let mut known = self.known.lock().await;
        if let Some((at, client)) = &known.client
            && now < age.after(*at)
        {
            return Ok(Arc::clone(client));
        }
        if let Some((at, failed)) = &known.failed
            && now < LEFT_ALONE.after(*at)
        {
            return Err(failed.clone());
        }
        match self.discover().await {
            Ok(client) => {
                let client = Arc::new(client);
                *known = Known { client: Some((now, Arc::clone(&client))), failed: None };
                Ok(client)
            }
            Err(error) => {
                known.failed = Some((now, error.clone()));
                Err(error)
            }
        }
    }

    async fn discover(&self) -> Result<Ready, SignInError> {
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(|error| self.unusable(&error))?;
        let discovered = CoreProviderMetadata::discover_async(issuer, &self.http).await;
        let metadata = discovered.map_err(|error| match error {
            DiscoveryError::Request(why) => self.unreachable(&why),
            error => self.unusable(&error),
        })?;
        let takes = |method: CoreClientAuthMethod| {
            metadata.token_endpoint_auth_methods_supported().is_none_or(|methods| methods.contains(&method))
        };
        let auth_type = match takes(CoreClientAuthMethod::ClientSecretBasic) {
            true => AuthType::BasicAuth,
            false => AuthType::RequestBody,
        };
        let redirect =
            RedirectUrl::new(self.settings.redirect.clone()).map_err(|error| self.unusable(&error))?;
        let id = ClientId::new(self.settings.client_id.clone());
        let secret = self.settings.client_secret.as_ref();
        let secret = secret.map(|secret| ClientSecret::new(secret.expose().to_owned()));
        let client = CoreClient::from_provider_metadata(metadata, id, secret);
        Ok(client.set_redirect_uri(redirect).set_auth_type(auth_type))
    }

    fn issuer(&self) -> String {
        self.settings.issuer.clone()
    }

    fn unreachable(&self, why: &NoAnswer) -> SignInError {
        SignInError::Unreachable { issuer: self.issuer(), why: why.to_string() }
    }

    fn unusable(&self, why: &dyn fmt::Display) -> SignInError {
        SignInError::Discovery { issuer: self.issuer(), why: shown(&why.to_string()) }
    }

    fn not_proven(&self, why: &str) -> SignInError {
        SignInError::Token { issuer: self.issuer(), why: shown(why) }
    }

    fn count(&self, error: &SignInError) {
        let counter = match error.is_for_want_of_a_role() {
            true => &self.counts.without_role,
            false => &self.counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why an ID token proves nothing.
#[derive(Debug, thiserror::Error)]
enum NotProven {
    #[error("it is signed with a key that the provider does not publish")]
    UnknownKey,
    #[error("{0}")]
    Claims(String),
}

impl From<ClaimsVerificationError> for NotProven {
    fn from(error: ClaimsVerificationError) -> Self {
        match error {
            ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) => {
                Self::UnknownKey
            }
            ClaimsVerificationError::SignatureVerification(error) => Self::Claims(error.to_string()),
            error => Self::Claims(error.to_string()),
        }
    }
}

/// The subject and all claims of an ID token whose signature, issuer, audience, times and nonce are right, and that goes
/// with the access token where it says with which.
fn verified(
    client: &Ready,
    token: &CoreIdToken,
    access_token: &AccessToken,
    nonce: &Nonce,
    now: Timestamp,
) -> Result<(SubjectIdentifier, Claims), NotProven> {
    let now: DateTime<Utc> = DateTime::from_timestamp(now.as_second(), 0).unwrap_or_default();
    let verifier = client.id_token_verifier().set_time_fn(move || now);
    let known = token.claims(&verifier, nonce)?;
    if let Some(expected) = known.access_token_hash() {
        let signature = |error: SignatureVerificationError| NotProven::Claims(error.to_string());
        let algorithm = token.signing_alg().map_err(signature)?;
        let key = token.signing_key(&verifier).map_err(signature)?;
        let hash = AccessTokenHash::from_token(access_token, algorithm, key);
        if hash.map_err(|error| NotProven::Claims(error.to_string()))? != *expected {
            return Err(NotProven::Claims("it goes with another access token".to_owned()));
        }
    }
    Ok((known.subject().clone(), claims_of(token).unwrap_or_default()))
}

/// Every claim of a token, those besides the standard included.
fn claims_of(token: &CoreIdToken) -> Option<Claims> {
    let Ok(Value::String(token)) = serde_json::to_value(token) else { return None };
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Claims of any name.
#[derive(Debug, Serialize, Deserialize)]
struct Anything {
    #[serde(flatten)]
    claims: Claims,
}

impl AdditionalClaims for Anything {}

/// A text of the provider on one line, cut where it is too long.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_SHOWN).collect()
}

/// Asks the provider.
struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// Why the provider did not answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("it did not answer within {WITHIN:?}")]
    Timeout,
    #[error("{0}")]
    Failed(String),
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = NoAnswer;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, NoAnswer>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        let request = request.map(|body| Full::new(Bytes::from(body)));
        Box::pin(async move {
            let answered = tokio::time::timeout(WITHIN, async {
                let response = self.0.request(request).await;
                let (head, body) = response.map_err(|error| failed(&error))?.into_parts();
                let body = Limited::new(body, LARGEST_ANSWER).collect().await;
                let body = body.map_err(|error| NoAnswer::Failed(error.to_string()))?.to_bytes();
                Ok(HttpResponse::from_parts(head, body.to_vec()))
            });
            answered.await.map_err(|_| NoAnswer::Timeout)?
        })
    }
}

fn failed(error: &hyper_util::client::legacy::Error) -> NoAnswer {
    NoAnswer::Failed(match trust::of_tls(error) {
        Some(error) => trust::told(error).0,
        None => root_cause(error),
    })
}
