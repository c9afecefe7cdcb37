//! What a request says of its caller in its head: a token, and with proxy credentials a tenant.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::gateway::headers::{Field, Overview};
use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;

/// Carries a token where `Proxy-Authorization` cannot be set: many HTTP libraries keep that one to themselves.
pub const X_RELAIS_TOKEN: HeaderName = HeaderName::from_static("x-relais-token");

const ONCE: &str = "send Proxy-Authorization: Bearer TOKEN, or Basic with the tenant's FINESS number as the user and the \
                    token as the password, or X-Relais-Token: TOKEN; one of them, once";

/// A token and a tenant, as far as the head has them.
#[derive(Debug, Default)]
pub struct Credentials {
    token: Option<Zeroizing<Vec<u8>>>,
    /// The user of `Basic` credentials: the tenant.
    pub tenant: Option<Finess>,
}

impl Credentials {
    /// Reads a head.
    ///
    /// # Errors
    /// When it has several tokens, or something that is none.
    pub fn read(headers: &HeaderMap, overview: Overview) -> Result<Self, Problem> {
        // As servers that fold hyphens into underscores would read it (CVE-2025-64484).
        if overview.has(Field::XRelaisTokenFolded) {
            return Err(refused("X_Relais_Token is not X-Relais-Token"));
        }
        let mut credentials = Self::default();
        if overview.has(Field::ProxyAuthorization) {
            let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
            match (shown.next(), shown.next()) {
                (Some(one), None) => credentials = Self::of_proxy(one)?,
                _ => return Err(refused("Proxy-Authorization is there more than once")),
            }
        }
        if overview.has(Field::XRelaisToken) {
            let mut shown = headers.get_all(X_RELAIS_TOKEN).iter();
            match (shown.next(), shown.next(), &credentials.token) {
                (Some(one), None, None) => credentials.token = Some(secret(one.as_bytes())),
                _ => return Err(refused("the request shows more than one token")),
            }
        }
        Ok(credentials)
    }

    fn of_proxy(shown: &HeaderValue) -> Result<Self, Problem> {
        let shown = shown.as_bytes();
        let end = shown.iter().position(|byte| *byte == b' ');
        let (scheme, rest) = shown.split_at(end.unwrap_or(shown.len()));
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Ok(Self {
                token: Some(secret(rest)),
                tenant: None,
            });
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(refused("Proxy-Authorization is neither Bearer nor Basic"));
        }
        let pair = STANDARD.decode(rest).map(Zeroizing::new);
        let pair = pair.map_err(|_| refused("the Basic credentials are not in Base64"))?;
        let colon = pair.iter().position(|byte| *byte == b':');
        let (user, password) = pair.split_at(colon.unwrap_or(pair.len()));
        let password = password.get(1..).unwrap_or_default();
        // Without one, as `http://:TOKEN@…` gives it, another part of the request names the tenant.
        let tenant = match user {
            b"" => None,
            user => Some(std::str::from_utf8(user).unwrap_or("?").parse().map_err(
                |error: crate::identity::finess::FinessError| {
                    Problem::new(Code::TenantMalformed, error.to_string(), ONCE)
                },
            )?),
        };
        Ok(Self {
            // A client that is given no password sends an empty one.
            token: (!password.is_empty()).then(|| secret(password)),
            tenant,
        })
    }

    /// These and those of the tunnel in which they come.
    ///
    /// # Errors
    /// When both have a token: which of them is meant?
    pub fn in_tunnel(self, tunnel: Self) -> Result<Self, Problem> {
        match (self.token, tunnel.token) {
            (Some(_), Some(_)) => Err(refused("the tunnel was asked for with a token already")),
            (own, of_tunnel) => Ok(Self {
                token: own.or(of_tunnel),
                tenant: self.tenant,
            }),
        }
    }

    /// The token, if one is shown.
    pub fn token(&self) -> Option<&[u8]> {
        self.token.as_ref().map(|token| token.as_slice())
    }
}

fn secret(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::CallerUnauthenticated, detail, ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Result<(Option<String>, Option<String>), Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let read =
            Credentials::read(&headers, Overview::of(&headers)).map_err(|problem| problem.code)?;
        let token = read
            .token()
            .map(|token| String::from_utf8_lossy(token).into_owned());
        Ok((token, read.tenant.map(|tenant| tenant.to_string())))
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_token_is_read_from_each_of_its_places() {
        let token = || Some("relais_x".to_owned());
        let tenant = || Some("060785003".to_owned());
        assert_eq!(read(&[]), Ok((None, None)));
        assert_eq!(read(&[("x-relais-token", "relais_x")]), Ok((token(), None)));
        assert_eq!(
            read(&[("proxy-authorization", "bEARER  relais_x")]),
            Ok((token(), None))
        );
        for (pair, expected) in [
            ("060785003:relais_x", (token(), tenant())),
            (":relais_x", (token(), None)),
            ("060785003:", (None, tenant())),
            ("060785003", (None, tenant())),
        ] {
            assert_eq!(
                read(&[("proxy-authorization", &basic(pair))]),
                Ok(expected),
                "{pair}"
            );
        }
    }

    #[test]
    fn two_tokens_or_what_is_none_are_refused() {
        let unauthenticated = Err(Code::CallerUnauthenticated);
        assert_eq!(
            read(&[("x-relais-token", "a"), ("x-relais-token", "a")]),
            unauthenticated
        );
        assert_eq!(
            read(&[("proxy-authorization", "Bearer a"), ("x-relais-token", "a")]),
            unauthenticated
        );
        assert_eq!(
            read(&[
                ("proxy-authorization", "Bearer a"),
                ("proxy-authorization", "Bearer a")
            ]),
            unauthenticated
        );
        assert_eq!(read(&[("x_relais_token", "a")]), unauthenticated);
        assert_eq!(
            read(&[("proxy-authorization", "Digest a")]),
            unauthenticated
        );
        assert_eq!(read(&[("proxy-authorization", "Basic !")]), unauthenticated);
        assert_eq!(
            read(&[("proxy-authorization", &basic("somebody:x"))]),
            Err(Code::TenantMalformed)
        );
    }
}
