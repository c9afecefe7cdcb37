//! For whom and for what: tenant, service and the rest of the path.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::Authority;
use http::{HeaderMap, Uri};
use relais::gateway::address::{self, Address, Bound, Said};
use relais::gateway::credentials::Credentials;
use relais::gateway::headers::Overview;
use relais::gateway::table::Table;
use relais::identity::finess::Finess;
use relais::services::{Service, is_service_name};

use super::configuration::Folder;
use super::{fields, first_line};

/// Services at addresses of which one begins as another does.
const SERVICES: &str = r#"
environment = "test"
[[listeners]]
address = "127.0.0.1:0"
[identities]
directory = "certs"
[log]
access = "off"
[services.dmp]
url = "https://dmp.example/si-dmp-server"
trust = "public"
[services.dmp-next]
url = "https://dmp.example/si-dmp-server/next"
trust = "public"
[services.plain]
url = "https://dmp.example"
trust = "public"
[services.port]
url = "https://dmp.example:8443/a%2Fb"
trust = "public"
[services.number]
url = "https://[2001:db8::1]/x"
trust = "public"
"#;

/// A table of these services in which nobody has a certificate.
static TABLE: LazyLock<(Folder, std::sync::Arc<Table>)> = LazyLock::new(|| {
    let folder = Folder::new();
    let loaded = folder
        .read(SERVICES)
        .unwrap_or_else(|error| panic!("{error}"));
    let bound = relais::app::bind(loaded.config).unwrap_or_else(|error| panic!("{error}"));
    let table = bound.app().gateway.table.load_full();
    (folder, table)
});

/// Reads lines: what the listener is bound to (a tenant and a service, each of which may be missing), the target of a
/// request, and its fields.
pub fn check(input: &[u8]) {
    let (bound, rest) = first_line(input);
    let (target, head) = first_line(rest);
    let bound = String::from_utf8_lossy(bound);
    let (tenant, service) = bound.split_once(' ').unwrap_or((&bound, ""));
    let bound = Bound {
        tenant: tenant.parse().ok(),
        service: is_service_name(service).then(|| service.to_owned()),
    };
    let Ok(target) = Uri::try_from(target) else {
        return;
    };
    let headers = fields(head);
    let path = target.path_and_query().map_or("", |path| path.as_str());
    let mut named: Vec<Finess> = bound.tenant.into_iter().collect();
    named.extend(named_by(&headers));

    let overview = Overview::of(&headers);
    let said = Credentials::read(&headers, overview)
        .and_then(|credentials| Said::read(&headers, overview, &credentials));
    let Ok(said) = said else {
        return;
    };
    if let Some(authority) = target.authority()
        && let Ok((service, remainder)) = TABLE.1.service_at(
            authority.host(),
            authority.port_u16(),
            path,
            bound.service.as_deref(),
        )
    {
        let (_, offered) = TABLE
            .1
            .service(service)
            .unwrap_or_else(|problem| panic!("{problem:?}"));
        reached(&offered.service, authority, path, remainder);
    }
    let in_path = path.strip_prefix("/@").map(|rest| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        rest.split_at(end)
    });
    let mut on_path = named.clone();
    if let Some((tenant, _)) = in_path {
        on_path.extend(tenant.parse::<Finess>());
    }
    match address::read(path, said, &bound) {
        Ok(address) => {
            tenant_is(address.tenant, &on_path);
            split(&address, path, &bound);
        }
        // What agrees and names a service is understood.
        Err(_) => {
            let is_malformed = in_path.is_some_and(|(tenant, _)| tenant.parse::<Finess>().is_err());
            let rest = in_path.map_or(path, |(_, rest)| rest);
            let first = rest.strip_prefix('/').unwrap_or_default();
            let is_nameless = (bound.service.is_none() || rest.starts_with("/-/"))
                && (first.is_empty() || first.starts_with(['/', '?']));
            assert!(
                has_several(&on_path) || is_malformed || is_nameless,
                "{path}"
            );
        }
    }
    if let Ok(tenant) = address::the_one([bound.tenant, said.in_header, said.in_credentials, None])
    {
        tenant_is(tenant, &named);
    }
}

/// The tenant is one that the request named, and the only one.
fn tenant_is(tenant: Option<Finess>, named: &[Finess]) {
    assert!(!has_several(named), "of {named:?}, {tenant:?} was taken");
    assert_eq!(tenant, named.first().copied());
}

fn has_several(named: &[Finess]) -> bool {
    named.windows(2).any(|pair| pair[0] != pair[1])
}

/// Nothing of the path is lost, changed or invented.
fn split(address: &Address<'_>, path: &str, bound: &Bound) {
    assert!(path.ends_with(address.remainder));
    let before = &path[..path.len() - address.remainder.len()];
    let tenant = before.strip_prefix("/@").map(|rest| &rest[..9]);
    let before = &before[tenant.map_or(0, |tenant| tenant.len() + 2)..];
    match &bound.service {
        Some(service) if address.service != address::OWN => {
            assert_eq!((address.service, before), (service.as_str(), ""));
        }
        _ => {
            assert_eq!(before, format!("/{}", address.service));
            assert!(!address.service.is_empty() && !address.service.contains(['/', '?']));
        }
    }
    assert!(
        address.remainder.is_empty()
            || address.remainder.starts_with(['/', '?'])
            || bound.service.is_some()
    );
}

/// A service is reached at its own host and port, and at that path which was asked for.
fn reached(service: &Service, authority: &Authority, path: &str, remainder: &str) {
    let target = &service.target;
    assert!((target.authority.host()).eq_ignore_ascii_case(authority.host()));
    assert!(
        authority
            .port_u16()
            .is_none_or(|port| port == target.port())
    );
    assert_eq!(format!("{}{remainder}", target.base_path), path);
    if path.starts_with('/') {
        let asked = target.path_and_query(remainder);
        assert_eq!(
            asked.map(|asked| asked.to_string()).ok().as_deref(),
            Some(path)
        );
    }
}

/// The tenants that a head names, read in the simplest way.
fn named_by(headers: &HeaderMap) -> Vec<Finess> {
    let in_header = headers.get_all("x-finess").iter();
    let in_header = in_header.filter_map(|value| value.to_str().ok()?.parse().ok());
    let in_credentials = headers.get_all("proxy-authorization").iter();
    let in_credentials = in_credentials.filter_map(|value| {
        let value = value.as_bytes();
        let is_basic = value.get(..6)?.eq_ignore_ascii_case(b"basic ");
        let pair = STANDARD
            .decode(value[6..].trim_ascii())
            .ok()
            .filter(|_| is_basic)?;
        let user = pair.split(|byte| *byte == b':').next()?;
        str::from_utf8(user).ok()?.parse().ok()
    });
    in_header.chain(in_credentials).collect()
}
