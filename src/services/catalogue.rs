//! The services that Relais knows by name, and where each fact comes from.

use super::{Environment, TlsVersions, WantedCertificate};

/// What the catalogue knows of a built-in service.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its word in paths and configuration.
    pub name: &'static str,
    /// What it is, in one line.
    pub what: &'static str,
    /// Base URL in production, where it is known.
    pub production_url: Option<&'static str>,
    /// Base URL in test, where it is known.
    pub test_url: Option<&'static str>,
    /// What it wants to be shown.
    pub certificate: WantedCertificate,
    /// Whether its server certificate comes from the web's public roots; otherwise `trust` must name a file.
    pub public_trust: bool,
    /// TLS versions.
    pub tls: TlsVersions,
}

/// The services that Relais knows by name. Only what evidence supports is stated; the rest is the configuration's to say.
///
/// Where each value comes from: `[guide]` the ANS ordering guides; `[spec]` a specification of the service's owner;
/// `[code]` public client code that works; `[assumed]` common practice, unconfirmed.
pub const CATALOGUE: &[BuiltIn] = &[
    BuiltIn {
        name: "dmp",
        what: "Dossier médical partagé (Mon espace santé), LPS web services",
        production_url: Some("https://lps2.dmp.gouv.fr/si-dmp-server"), // [code] /v2/services/… is the request's
        // [code] lps.dev1, lps.dev9 and dev6.lps2.dmp.gouv.fr are all in use: the CNDA says which one is yours.
        test_url: None,
        certificate: WantedCertificate::OrgAuthCli, // [guide]
        public_trust: false, // [code] clients trust AC IGC-SANTE ELEMENTAIRE ORGANISATIONS
        tls: TlsVersions::Only12, // [spec] PDT-INF-579 v4
    },
    BuiltIn {
        name: "insi-auto",
        what: "INSi, called by software on its own (batch, background)",
        production_url: Some("https://services-ps-tlsm.ameli.fr"), // [code] requests add /lps
        test_url: Some("https://qualiflps-services-ps-tlsm.ameli.fr"), // [code]
        certificate: WantedCertificate::InsiAuto,                  // [guide]
        public_trust: false,                                       // [code]
        tls: TlsVersions::Tls12And13,                              // [assumed] nothing published
    },
    BuiltIn {
        name: "insi-manu",
        what: "INSi, called on a person's demand",
        production_url: Some("https://services-ps-tlsm.ameli.fr"), // [code]
        test_url: Some("https://qualiflps-services-ps-tlsm.ameli.fr"), // [code]
        certificate: WantedCertificate::InsiManu,                  // [guide]
        public_trust: false,                                       // [code]
        tls: TlsVersions::Tls12And13,                              // [assumed]
    },
    BuiltIn {
        name: "psc",
        what: "Pro Santé Connect, endpoints called by servers (token, introspection, user info, CIBA)",
        production_url: Some("https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet"), // [spec]
        test_url: Some("https://auth.bas.psc.esante.gouv.fr/auth/realms/esante-wallet"), // [code] auth.bas.esw… before
        certificate: WantedCertificate::OrgAuthCli, // [spec] EXI_PSC_24
        public_trust: true,                         // [assumed] OpenID clients add no anchors
        tls: TlsVersions::Tls12And13,               // [spec] EXI_PSC_24: 1.2 or better
    },
    BuiltIn {
        name: "mssante",
        what: "MSSanté, the HTTP interface of an operator",
        production_url: None, // Each operator has its own.
        test_url: None,
        certificate: WantedCertificate::OrgAuthCli, // [guide] authenticates the holder of an application mailbox
        public_trust: false,                        // [spec] Référentiel #2: IGC-Santé alone
        tls: TlsVersions::Only12,                   // [spec] Référentiel #2 v1
    },
    BuiltIn {
        name: "ror",
        what: "Répertoire national de l'offre et des ressources, token endpoint",
        production_url: Some("https://auth-api.ror.esante.gouv.fr/auth/realms/ror"), // [spec]
        test_url: Some("https://bas-auth-api.qualif.ror.esante.gouv.fr/auth/realms/ror"), // [spec] host; [assumed] path
        certificate: WantedCertificate::OrgAuthCli,                                       // [spec]
        public_trust: false,          // [assumed] as for DMP and INSi
        tls: TlsVersions::Tls12And13, // [assumed]
    },
    BuiltIn {
        name: "ror-fhir",
        what: "Répertoire national de l'offre et des ressources, FHIR interface (bearer token)",
        production_url: Some("https://api-fhir.ror.esante.gouv.fr"), // [spec]
        test_url: Some("https://bas-api-fhir.qualif.ror.esante.gouv.fr"), // [spec] host shortened there
        certificate: WantedCertificate::None, // [spec] mutual TLS on the token endpoint only
        public_trust: true,                   // [assumed] plain HTTPS
        tls: TlsVersions::Tls12And13,         // [assumed]
    },
    BuiltIn {
        name: "roc",
        what: "Remboursement des organismes complémentaires",
        production_url: None, // Nothing published was found.
        test_url: None,
        certificate: WantedCertificate::OrgAuthCli, // [guide]
        public_trust: false,                        // [assumed] the stricter choice
        tls: TlsVersions::Tls12And13,               // [assumed]
    },
    BuiltIn {
        name: "annuaire",
        what: "Annuaire Santé, FHIR interface (ESANTE-API-KEY header)",
        production_url: Some("https://gateway.api.esante.gouv.fr/fhir/v2"), // [spec]
        test_url: None,                       // [spec] there is only one
        certificate: WantedCertificate::None, // [spec] an API key; a certificate there would only tell who asks
        public_trust: true,                   // [assumed] plain HTTPS
        tls: TlsVersions::Tls12And13,         // [assumed]
    },
];

impl BuiltIn {
    /// The built-in service of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOGUE.iter().find(|built_in| built_in.name == name)
    }

    /// Its base URL in an environment, where it is known.
    pub fn url(&self, environment: Environment) -> Option<&'static str> {
        match environment {
            Environment::Production => self.production_url,
            Environment::Test => self.test_url,
        }
    }
}
