//! The services that Relais knows by name, and where each fact comes from.

use super::{Environment, Owner, TlsVersions, WantedCertificate};

/// What the catalogue knows of a built-in service.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its word in paths and configuration.
    pub name: &'static str,
    /// What it is, in one line.
    pub what: &'static str,
    /// Base URL in production, where it is known.
    pub production_url: Option<Known<&'static str>>,
    /// Base URL in test, where it is known.
    pub test_url: Option<Known<&'static str>>,
    /// What it wants to be shown.
    pub certificate: Known<WantedCertificate>,
    /// Whose that may be.
    pub owner: Known<Owner>,
    /// Whether its server certificate comes from the web's public roots; otherwise `trust` must name a file.
    pub public_trust: Known<bool>,
    /// TLS versions.
    pub tls: Known<TlsVersions>,
    /// Defaults that differ from those of any service.
    pub defaults: &'static [DefaultValue],
    /// What to know before calling it.
    pub notes: &'static str,
}

/// A value, and how well it is known.
#[derive(Clone, Copy, Debug)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

/// Where the catalogue has a value from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Common practice, unconfirmed.
    Assumed,
    /// Public client code that works.
    Code,
    /// The ANS guides on ordering certificates.
    Guide,
    /// A specification or other publication of the service's owner.
    Spec,
}

impl Source {
    /// The word that the documentation uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Code => "code",
            Self::Guide => "guide",
            Self::Spec => "spec",
        }
    }
}

/// A default of one service: section (empty for the service's own keys), key, and value as a user would write it.
pub type DefaultValue = (&'static str, &'static str, &'static str);

const fn assumed<T: Copy>(value: T) -> Known<T> {
    Known {
        value,
        source: Source::Assumed,
    }
}

const fn code<T: Copy>(value: T) -> Known<T> {
    Known {
        value,
        source: Source::Code,
    }
}

const fn guide<T: Copy>(value: T) -> Known<T> {
    Known {
        value,
        source: Source::Guide,
    }
}

const fn spec<T: Copy>(value: T) -> Known<T> {
    Known {
        value,
        source: Source::Spec,
    }
}

/// Identity look-ups and tokens are a few kilobytes; a hundred times that is no honest request.
const SMALL_REQUESTS: DefaultValue = ("limits", "request_body", "1MB");

/// The official C# kit of the DMP accepts 50,000,000 bytes (MTOM attachments included).
const DOCUMENTS: DefaultValue = ("limits", "request_body", "50MB");

/// Reading is safe to repeat; FHIR searches are GET requests.
const READ_ONLY: DefaultValue = ("", "retry", "idempotent");

/// What both INSi services have in common.
const INSI: BuiltIn = BuiltIn {
    name: "insi",
    what: "Téléservice INSi",
    production_url: Some(code("https://services-ps-tlsm.ameli.fr")),
    test_url: Some(code("https://qualiflps-services-ps-tlsm.ameli.fr")),
    certificate: guide(WantedCertificate::InsiAuto),
    owner: guide(Owner::Structure),
    public_trust: code(false),
    tls: assumed(TlsVersions::Tls12And13),
    defaults: &[SMALL_REQUESTS],
    notes: "Requests add `/lps`. Only the `-tlsm` hosts take a structure's certificate. `Emetteur` in the request must \
            be the certificate's OU, which `GET /-/identity/…` tells. Faults are HTTP 500: `desir_560` is a CN \
            that is not INSi's. Test platforms may show a server certificate of the production chain.",
};

/// The services that Relais knows by name. Only what evidence supports is stated; the rest is the configuration's to say.
pub const CATALOGUE: &[BuiltIn] = &[
    BuiltIn {
        name: "dmp",
        what: "Dossier médical partagé (Mon espace santé), LPS web services",
        production_url: Some(code("https://lps2.dmp.gouv.fr/si-dmp-server")),
        // lps.dev1, lps.dev9 and dev6.lps2.dmp.gouv.fr are all in use.
        test_url: None,
        certificate: guide(WantedCertificate::OrgAuthCli),
        owner: guide(Owner::Structure),
        public_trust: code(false), // Clients trust AC IGC-SANTE ELEMENTAIRE ORGANISATIONS.
        tls: spec(TlsVersions::Only12), // PDT-INF-579 v4
        defaults: &[DOCUMENTS],
        notes: "Requests add `/v2/services/…`. The CNDA says which test host is yours. `Identifiant_Structure` in the \
                VIHF must be the certificate's OU, or a site of the same legal entity; an ORG SIGN certificate, which \
                Relais never touches, signs the VIHF. HTTP 500 carries SOAP faults and passes through.",
    },
    BuiltIn {
        name: "insi-auto",
        what: "INSi, called by software on its own (batch, background)",
        ..INSI
    },
    BuiltIn {
        name: "insi-manu",
        what: "INSi, called on a person's demand",
        certificate: guide(WantedCertificate::InsiManu),
        ..INSI
    },
    BuiltIn {
        name: "psc",
        what: "Pro Santé Connect, endpoints called by servers (token, introspection, user info, CIBA)",
        production_url: Some(spec(
            "https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet",
        )),
        test_url: Some(code(
            "https://auth.bas.psc.esante.gouv.fr/auth/realms/esante-wallet",
        )),
        certificate: spec(WantedCertificate::OrgAuthCli), // EXI_PSC_24
        owner: guide(Owner::Vendor), // The fournisseur de service may be the éditeur.
        public_trust: assumed(true), // OpenID clients add no anchors.
        tls: spec(TlsVersions::Tls12And13), // EXI_PSC_24: 1.2 or better
        defaults: &[SMALL_REQUESTS],
        notes: "One certificate for each `client_id`: bind it with `[[bindings]]`. Tokens are bound to the certificate \
                (`cnf`, RFC 8705): after a renewal they have to be asked for anew.",
    },
    BuiltIn {
        name: "mssante",
        what: "MSSanté, the HTTP interface of an operator",
        production_url: None,
        test_url: None,
        certificate: guide(WantedCertificate::OrgAuthCli), // Authenticates the holder of an application mailbox.
        owner: guide(Owner::Structure),
        public_trust: spec(false),      // Référentiel #2: IGC-Santé alone
        tls: spec(TlsVersions::Only12), // Référentiel #2 v1
        defaults: &[DOCUMENTS],
        notes: "Each operator has its own URL. IMAP and SMTP are not HTTP, and not this service.",
    },
    BuiltIn {
        name: "ror",
        what: "Répertoire national de l'offre et des ressources, token endpoint",
        production_url: Some(spec("https://auth-api.ror.esante.gouv.fr/auth/realms/ror")),
        test_url: Some(assumed(
            "https://bas-auth-api.qualif.ror.esante.gouv.fr/auth/realms/ror",
        )),
        certificate: spec(WantedCertificate::OrgAuthCli),
        owner: spec(Owner::Vendor), // The éditeur orders the certificate and is given the client_id.
        public_trust: assumed(false), // As for DMP and INSi.
        tls: assumed(TlsVersions::Tls12And13),
        defaults: &[SMALL_REQUESTS],
        notes: "The certificate's DN (or key) is declared to the ROR: one with another DN has no access until it is.",
    },
    BuiltIn {
        name: "ror-fhir",
        what: "Répertoire national de l'offre et des ressources, FHIR interface (bearer token)",
        production_url: Some(spec("https://api-fhir.ror.esante.gouv.fr")),
        test_url: Some(assumed("https://bas-api-fhir.qualif.ror.esante.gouv.fr")),
        certificate: spec(WantedCertificate::None), // Mutual TLS on the token endpoint only.
        owner: spec(Owner::Structure),
        public_trust: assumed(true),
        tls: assumed(TlsVersions::Tls12And13),
        defaults: &[SMALL_REQUESTS, READ_ONLY],
        notes: "No certificate is ever shown here. Wants the token of `ror` and four `Ror-…` fields.",
    },
    BuiltIn {
        name: "roc",
        what: "Remboursement des organismes complémentaires",
        production_url: None,
        test_url: None,
        certificate: guide(WantedCertificate::OrgAuthCli),
        owner: guide(Owner::Structure),
        public_trust: assumed(false), // The stricter choice.
        tls: assumed(TlsVersions::Tls12And13),
        defaults: &[],
        notes: "Nothing technical is published; each organisation names its own URL.",
    },
    BuiltIn {
        name: "annuaire",
        what: "Annuaire Santé, FHIR interface (ESANTE-API-KEY field)",
        production_url: Some(spec("https://gateway.api.esante.gouv.fr/fhir/v2")),
        test_url: None,                             // There is only one.
        certificate: spec(WantedCertificate::None), // A certificate here would only tell who asks.
        owner: spec(Owner::Structure),
        public_trust: assumed(true),
        tls: assumed(TlsVersions::Tls12And13),
        defaults: &[
            SMALL_REQUESTS,
            READ_ONLY,
            // Published: 17 calls a second and application, each taking 30 s at most.
            ("", "rate", "17"),
            ("timeouts", "response", "30s"),
        ],
        notes: "No certificate is ever shown here. Give the API key with \
                `[services.annuaire.headers] ESANTE-API-KEY = { file = \"…\" }`; applications then need not know it.",
    },
];

impl BuiltIn {
    /// The built-in service of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOGUE.iter().find(|built_in| built_in.name == name)
    }

    /// Its base URL in an environment, where it is known.
    pub fn url(&self, environment: Environment) -> Option<&'static str> {
        let known = match environment {
            Environment::Production => self.production_url,
            Environment::Test => self.test_url,
        };
        known.map(|known| known.value)
    }
}
