//! For whom and for what: reads tenant and service off a request.

use http::{HeaderMap, HeaderName};

use crate::gateway::credentials::Credentials;
use crate::gateway::headers::{Field, Overview};
use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;

/// Names the tenant of a request.
pub const X_FINESS: HeaderName = HeaderName::from_static("x-finess");

/// What stands in a service's place when Relais itself is asked; no service can be called so.
pub const OWN: &str = "-";

/// Where such paths begin, on listeners that are bound to a service too.
const OWN_PATHS: &str = "/-/";

const NAME_A_TENANT: &str = "send X-Finess: 060785003, or put /@060785003 before the path, or bind the listener to a tenant";

/// What a listener says of every request that arrives on it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bound {
    /// The tenant that requests speak for.
    pub tenant: Option<Finess>,
    /// The service that requests go to.
    pub service: Option<String>,
}

/// Where a request wants to go, on whose behalf.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Address<'a> {
    /// The tenant, if one is named.
    pub tenant: Option<Finess>,
    /// The service's name.
    pub service: &'a str,
    /// Path and query as the service is to see them after its base path, byte for byte.
    pub remainder: &'a str,
}

/// The tenants that a head names besides its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// In `X-Finess`.
    pub in_header: Option<Finess>,
    /// In proxy credentials.
    pub in_credentials: Option<Finess>,
    /// When its tunnel was asked for.
    pub in_tunnel: Option<Finess>,
}

impl Said {
    /// Reads a head whose credentials were read.
    ///
    /// # Errors
    /// When what is named is not a FINESS number, or named twice.
    pub fn read(
        headers: &HeaderMap,
        overview: Overview,
        credentials: &Credentials,
    ) -> Result<Self, Problem> {
        Ok(Self {
            in_header: tenant_in_header(headers, overview)?,
            in_credentials: credentials.tenant,
            in_tunnel: None,
        })
    }
}

/// The tenant that several parts of a request name, if they agree.
///
/// # Errors
/// When they do not.
pub fn the_one(named: [Option<Finess>; 4]) -> Result<Option<Finess>, Problem> {
    let mut named = named.into_iter().flatten();
    let tenant = named.next();
    match (tenant, named.find(|other| Some(*other) != tenant)) {
        (Some(one), Some(other)) => Err(Problem::new(
            Code::TenantAmbiguous,
            format!("the request speaks for {one} and for {other}"),
            "name the tenant once; a listener that is bound to a tenant serves no other",
        )),
        _ => Ok(tenant),
    }
}

/// Reads tenant and service.
///
/// # Errors
/// When the tenant is malformed or named in two ways that differ, or when no service is named.
pub fn read<'a>(
    path_and_query: &'a str,
    said: Said,
    bound: &'a Bound,
) -> Result<Address<'a>, Problem> {
    let (in_path, rest) = tenant_in_path(path_and_query)?;
    let tenant = the_one([bound.tenant, in_path, said.in_header, said.in_credentials])?;
    let (service, remainder) = match &bound.service {
        Some(service) if !rest.starts_with(OWN_PATHS) => (service.as_str(), rest),
        _ => split_service(rest)?,
    };
    Ok(Address {
        tenant,
        service,
        remainder,
    })
}

/// The tenant of a service that needs one.
///
/// # Errors
/// When there is none.
pub fn required(tenant: Option<Finess>) -> Result<Finess, Problem> {
    tenant.ok_or_else(|| Problem::new(Code::TenantMissing, "no tenant is named", NAME_A_TENANT))
}

fn tenant_in_path(path: &str) -> Result<(Option<Finess>, &str), Problem> {
    let Some(named) = path.strip_prefix("/@") else {
        return Ok((None, path));
    };
    let end = named.find(['/', '?']).unwrap_or(named.len());
    Ok((Some(parse(&named[..end])?), &named[end..]))
}

fn tenant_in_header(headers: &HeaderMap, overview: Overview) -> Result<Option<Finess>, Problem> {
    // As servers that fold hyphens into underscores would read it (CVE-2025-64484).
    if overview.has(Field::XFinessFolded) {
        return Err(Problem::new(
            Code::TenantMalformed,
            "X_Finess is not X-Finess",
            "write the header with a hyphen",
        ));
    }
    if !overview.has(Field::XFiness) {
        return Ok(None);
    }
    let mut values = headers.get_all(X_FINESS).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::new(
            Code::TenantAmbiguous,
            "X-Finess is there more than once",
            "send it once",
        ));
    }
    parse(value.to_str().unwrap_or("?")).map(Some)
}

fn parse(text: &str) -> Result<Finess, Problem> {
    text.parse()
        .map_err(|error: crate::identity::finess::FinessError| {
            Problem::new(Code::TenantMalformed, error.to_string(), NAME_A_TENANT)
        })
}

fn split_service(path: &str) -> Result<(&str, &str), Problem> {
    let named = path.strip_prefix('/').unwrap_or_default();
    let end = named.find(['/', '?']).unwrap_or(named.len());
    if end == 0 {
        return Err(Problem::new(
            Code::ServiceUnknown,
            "the path names no service",
            "put the service first in the path, as in /dmp/v2/services/repository",
        ));
    }
    Ok((&named[..end], &named[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with<'a>(
        path: &'a str,
        headers: &HeaderMap,
        bound: &'a Bound,
    ) -> Result<Address<'a>, Code> {
        let said = Said::read(headers, Overview::of(headers), &Credentials::default());
        said.and_then(|said| read(path, said, bound))
            .map_err(|problem| problem.code)
    }

    fn read_code<'a>(
        path: &'a str,
        headers: &[&'static str],
        bound: &'a Bound,
    ) -> Result<Address<'a>, Code> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(X_FINESS, http::HeaderValue::from_static(value));
        }
        read_with(path, &map, bound)
    }

    const ANYWHERE: Bound = Bound {
        tenant: None,
        service: None,
    };

    #[test]
    fn the_header_and_the_path_form_say_the_same() {
        let tenant = Some("060785003".parse().unwrap());
        let expected = Address {
            tenant,
            service: "dmp",
            remainder: "/v2/a%2Fb?x=/y&z",
        };
        assert_eq!(
            read_code("/dmp/v2/a%2Fb?x=/y&z", &["060785003"], &ANYWHERE),
            Ok(expected)
        );
        assert_eq!(
            read_code("/@060785003/dmp/v2/a%2Fb?x=/y&z", &[], &ANYWHERE),
            Ok(expected)
        );
        assert_eq!(
            read_code("/@060785003/dmp/v2/a%2Fb?x=/y&z", &["060785003"], &ANYWHERE),
            Ok(expected)
        );
    }

    #[test]
    fn a_service_may_stand_alone_or_before_a_query() {
        assert_eq!(read_code("/dmp", &[], &ANYWHERE).unwrap().remainder, "");
        assert_eq!(
            read_code("/dmp?wsdl", &[], &ANYWHERE).unwrap().remainder,
            "?wsdl"
        );
        assert_eq!(read_code("/dmp/", &[], &ANYWHERE).unwrap().remainder, "/");
    }

    #[test]
    fn what_is_asked_of_relais_itself_is_no_services_on_any_listener() {
        let bound = Bound {
            tenant: None,
            service: Some("dmp".to_owned()),
        };
        for listener in [&ANYWHERE, &bound] {
            let address = read_code("/@060785003/-/identity/dmp", &[], listener).unwrap();
            assert_eq!((address.service, address.remainder), (OWN, "/identity/dmp"));
        }
        assert_eq!(read_code("/-", &[], &bound).unwrap().service, "dmp");
    }

    #[test]
    fn on_a_bound_listener_the_whole_path_is_the_services() {
        let bound = Bound {
            tenant: Some("060785003".parse().unwrap()),
            service: Some("insi-auto".to_owned()),
        };
        let address = read_code("/lps", &[], &bound).unwrap();
        assert_eq!((address.service, address.remainder), ("insi-auto", "/lps"));
        assert_eq!(
            read_code("/@010000024/lps", &[], &bound),
            Err(Code::TenantAmbiguous)
        );
        assert_eq!(
            read_code("/lps", &["010000024"], &bound),
            Err(Code::TenantAmbiguous)
        );
        assert!(read_code("/@060785003/lps", &["060785003"], &bound).is_ok());
    }

    #[test]
    fn two_tenants_in_one_request_are_an_error_even_when_they_agree_in_two_headers() {
        assert_eq!(
            read_code("/@060785003/dmp", &["010000024"], &ANYWHERE),
            Err(Code::TenantAmbiguous)
        );
        assert_eq!(
            read_code("/dmp", &["060785003", "060785003"], &ANYWHERE),
            Err(Code::TenantAmbiguous)
        );
    }

    #[test]
    fn what_is_not_exactly_a_finess_is_malformed() {
        for value in [
            "",
            "06078500",
            "0607850031",
            "060785003,010000024",
            "060785003 010000024",
            "O6078500E",
        ] {
            assert_eq!(
                read_code("/dmp", &[value], &ANYWHERE),
                Err(Code::TenantMalformed),
                "{value:?}"
            );
        }
        assert_eq!(
            read_code("/@/dmp", &[], &ANYWHERE),
            Err(Code::TenantMalformed)
        );
        assert_eq!(
            read_code("/@060785003", &[], &ANYWHERE),
            Err(Code::ServiceUnknown)
        );
    }

    #[test]
    fn the_underscore_spelling_is_refused_rather_than_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert("x_finess", http::HeaderValue::from_static("060785003"));
        assert_eq!(
            read_with("/dmp", &headers, &ANYWHERE),
            Err(Code::TenantMalformed)
        );
    }

    #[test]
    fn a_path_without_a_service_says_so() {
        for path in ["/", "", "*", "/?x"] {
            assert_eq!(
                read_code(path, &[], &ANYWHERE),
                Err(Code::ServiceUnknown),
                "{path:?}"
            );
        }
    }
}
