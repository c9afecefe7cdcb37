//! The page that documents the built-in services.

use std::fmt::Write as _;

use super::{BuiltIn, CATALOGUE, Known, Owner, TlsVersions, WantedCertificate};

/// The page `docs/services.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Services\n\nWhat Relais knows of the national services. Made from the code. Every value can be overridden in \
         `[services.NAME]`, and other services can be declared: see `config/relais.reference.toml`.\n\n\
         How well a value is known: *guide*: the ANS guides on ordering certificates; *spec*: a specification or other \
         publication of the service's owner; *code*: public client code that works; *assumed*: common practice, unconfirmed.\n",
    );
    for service in CATALOGUE {
        write_service(&mut page, service).expect("writing to a String does not fail");
    }
    page
}

fn write_service(page: &mut String, service: &BuiltIn) -> std::fmt::Result {
    writeln!(page, "\n## {}\n\n{}.\n", service.name, service.what)?;
    writeln!(page, "| | | known from |\n|---|---|---|")?;
    row(page, "production URL", service.production_url, code)?;
    row(page, "test URL", service.test_url, code)?;
    row(page, "certificate", Some(service.certificate), wanted)?;
    if service.certificate.value != WantedCertificate::None {
        row(page, "owned by", Some(service.owner), owner)?;
    }
    row(
        page,
        "server certificate from",
        Some(service.public_trust),
        trust,
    )?;
    row(page, "TLS", Some(service.tls), tls)?;
    for (section, key, value) in service.defaults {
        let dot = if section.is_empty() { "" } else { "." };
        writeln!(page, "| `{section}{dot}{key}` | `{value}` | |")?;
    }
    writeln!(page, "\n{}", service.notes)
}

fn row<T>(
    page: &mut String,
    what: &str,
    known: Option<Known<T>>,
    show: impl Fn(T) -> String,
) -> std::fmt::Result {
    match known {
        Some(Known { value, source }) => {
            writeln!(page, "| {what} | {} | {} |", show(value), source.as_str())
        }
        None => writeln!(page, "| {what} | not built in: `url` must be given | |"),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn wanted(certificate: WantedCertificate) -> String {
    match certificate {
        WantedCertificate::OrgAuthCli => "ORG AUTH_CLI, none of INSi's",
        WantedCertificate::InsiAuto => "ORG AUTH_CLI with CN `INSI-AUTO`",
        WantedCertificate::InsiManu => "ORG AUTH_CLI with CN `INSI-MANU`",
        WantedCertificate::None => "none is ever shown",
    }
    .to_owned()
}

fn owner(owner: Owner) -> String {
    match owner {
        Owner::Structure => "the structure",
        Owner::Vendor => "the structure, or the éditeur",
    }
    .to_owned()
}

fn trust(is_public: bool) -> String {
    let whom = if is_public {
        "the web's public authorities"
    } else {
        "IGC-Santé: `trust` must name a file"
    };
    whom.to_owned()
}

fn tls(versions: TlsVersions) -> String {
    match versions {
        TlsVersions::Only12 => "1.2 only",
        TlsVersions::Only13 => "1.3 only",
        TlsVersions::Tls12And13 => "1.2 and 1.3",
    }
    .to_owned()
}
