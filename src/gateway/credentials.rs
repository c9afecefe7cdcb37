//! What a request says of its caller in its head: a token, and with proxy credentials a tenant.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::gateway::caller::TokenHash;
use crate::gateway::headers::{Field, Overview};
use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;

/// Carries a token where `Proxy-Authorization` cannot be set: many HTTP libraries keep that one to themselves.
pub const X_RELAIS_TOKEN: HeaderName = HeaderName::from_static("x-relais-token");

const ONCE: &str = "send Proxy-Authorization: Bearer TOKEN, or Basic with the tenant's FINESS number as the user and the \
                    token as the password, or X-Relais-Token: TOKEN; one of them, once";

/// A token and a tenant, as far as the head has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials {
    /// What is shown of who asks.
    pub shown: Shown,
    /// The user of `Basic` credentials: the tenant.
    pub tenant: Option<Finess>,
}

/// What a head shows of who asks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Shown {
    /// Nothing.
    #[default]
    Nothing,
    /// A token, of which its hash is kept.
    Token(TokenHash),
    /// Something that is no token of Relais.
    Else,
}

impl Shown {
    fn of(shown: &[u8]) -> Self {
        TokenHash::of_shown(shown).map_or(Self::Else, Self::Token)
    }
}

impl Credentials {
    /// Reads a head.
    ///
    /// # Errors
    /// When it has several tokens, or a user who is no tenant.
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
            match (shown.next(), shown.next(), credentials.shown) {
                (Some(one), None, Shown::Nothing) => credentials.shown = Shown::of(one.as_bytes()),
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
                shown: Shown::of(rest),
                tenant: None,
            });
        }
        let is_basic = scheme.eq_ignore_ascii_case(b"basic");
        let pair = is_basic.then(|| STANDARD.decode(rest).map(Zeroizing::new));
        // What is for another kind of proxy.
        let Some(Ok(pair)) = pair else {
            return Ok(Self {
                shown: Shown::Else,
                tenant: None,
            });
        };
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
            shown: match password {
                // A client that is given no password sends an empty one.
                b"" => Shown::Nothing,
                password => Shown::of(password),
            },
            tenant,
        })
    }

    /// These and what was shown for the tunnel in which they come.
    ///
    /// # Errors
    /// When both have a token: which of them is meant?
    pub fn in_tunnel(self, shown: Shown) -> Result<Self, Problem> {
        let shown = match (self.shown, shown) {
            (own, Shown::Nothing) => own,
            (Shown::Nothing, of_tunnel) => of_tunnel,
            _ => return Err(refused("the tunnel was asked for with a token already")),
        };
        Ok(Self { shown, ..self })
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::CallerUnauthenticated, detail, ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "relais_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn read(fields: &[(&'static str, &str)]) -> Result<(Shown, Option<String>), Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let read = Credentials::read(&headers, Overview::of(&headers));
        let read = read.map_err(|problem| problem.code)?;
        Ok((read.shown, read.tenant.map(|tenant| tenant.to_string())))
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_token_is_read_from_each_of_its_places() {
        let token = Shown::Token(TokenHash::of(TOKEN.as_bytes()));
        let tenant = || Some("060785003".to_owned());
        assert_eq!(read(&[]), Ok((Shown::Nothing, None)));
        assert_eq!(read(&[("x-relais-token", TOKEN)]), Ok((token, None)));
        let bearer = format!("bEARER  {TOKEN}");
        assert_eq!(read(&[("proxy-authorization", &bearer)]), Ok((token, None)));
        for (pair, expected) in [
            (format!("060785003:{TOKEN}"), (token, tenant())),
            (format!(":{TOKEN}"), (token, None)),
            ("060785003:".to_owned(), (Shown::Nothing, tenant())),
            ("060785003".to_owned(), (Shown::Nothing, tenant())),
            ("060785003:x".to_owned(), (Shown::Else, tenant())),
        ] {
            assert_eq!(
                read(&[("proxy-authorization", &basic(&pair))]),
                Ok(expected),
                "{pair}"
            );
        }
    }

    #[test]
    fn two_tokens_or_a_user_who_is_no_tenant_are_refused_and_what_is_no_token_is_told_from_nothing()
    {
        let unauthenticated = Err(Code::CallerUnauthenticated);
        let bearer = format!("Bearer {TOKEN}");
        for two in [
            [("x-relais-token", TOKEN), ("x-relais-token", TOKEN)],
            [("proxy-authorization", &bearer), ("x-relais-token", TOKEN)],
            [
                ("proxy-authorization", &bearer),
                ("proxy-authorization", &bearer),
            ],
        ] {
            assert_eq!(read(&two), unauthenticated);
        }
        assert_eq!(read(&[("x_relais_token", TOKEN)]), unauthenticated);
        let somebody = basic("somebody:x");
        assert_eq!(
            read(&[("proxy-authorization", &somebody)]),
            Err(Code::TenantMalformed)
        );
        for shown in [
            ("x-relais-token", ""),
            ("proxy-authorization", "Bearer"),
            ("proxy-authorization", "Digest a"),
            ("proxy-authorization", "Basic !"),
        ] {
            assert_eq!(read(&[shown]), Ok((Shown::Else, None)), "{shown:?}");
        }
    }
}
