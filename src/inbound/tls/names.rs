//! The names in a listener's certificate: under these, applications reach it.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// DNS names and addresses (RFC 5280 section 4.2.1.6). The CN is none of them: RFC 9525 section 2 has done with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// In lower case; the first label may be `*`.
    dns: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// Those of a certificate in DER; none if it cannot be read.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return names;
        };
        let extension = certificate.subject_alternative_name().ok().flatten();
        for name in extension.iter().flat_map(|one| &one.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Whether a host as it stands in `Host`, without port, is one of them. A `*` stands for one label, the first
    /// (RFC 9525 section 6.3).
    pub(crate) fn has(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let is_it = |name: &str| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| {
                !label.is_empty() && rest.eq_ignore_ascii_case(parent)
            }),
            None => name.eq_ignore_ascii_case(host),
        };
        self.dns.iter().any(|name| is_it(name))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_certificate_whatever_its_case_and_a_star_is_one_label() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = [
            "Relais.Example",
            "*.intra.example",
            "192.0.2.7",
            "2001:db8::7",
        ];
        let params = rcgen::CertificateParams::new(names.map(str::to_owned)).unwrap();
        let names = Names::of(params.self_signed(&key).unwrap().der());
        for host in [
            "relais.example",
            "RELAIS.example",
            "a.intra.example",
            "192.0.2.7",
            "[2001:db8::7]",
            "[2001:DB8:0::7]",
        ] {
            assert!(names.has(host), "{host}");
        }
        for host in [
            "",
            "example",
            "x.relais.example",
            "intra.example",
            ".intra.example",
            "a.b.intra.example",
            "192.0.2.8",
            "*.intra.example.evil",
        ] {
            assert!(!names.has(host), "{host}");
        }
        assert_eq!(Names::of(b"none"), Names::default());
    }
}
