//! The rules of IGC-Santé and of the services, as Relais enforces and reports them: the one table.

use std::fmt;

use serde::Serialize;

/// A rule: each finding of a check and each refusal of a certificate names one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// Only ORG AUTH_CLI opens TLS connections.
    AuthCli,
    /// Certificates come from IGC-Santé.
    IgcSante,
    /// Test and production never meet.
    Environment,
    /// INSi compares the CN to the letter.
    InsiCn,
    /// INSi's certificates are for INSi, and INSi takes no other.
    InsiOnly,
    /// The OU names the structure.
    StructureId,
    /// A certificate speaks for its own structure, or for the sites of its legal entity.
    OwnStructure,
    /// In some sectors a legal entity does not speak for its sites.
    SectorSite,
    /// In some sectors the legal entity's certificate is the one to have.
    SectorLegalEntity,
    /// The éditeur's certificate is not a structure's.
    Vendor,
    /// One certificate for each client of Pro Santé Connect.
    PscClient,
    /// A key pair is never duplicated.
    KeyShared,
    /// Two certificates that nothing tells apart.
    Ambiguous,
    /// Certificates have an end.
    Validity,
    /// Revoked certificates are not used.
    Revoked,
    /// Trust in production rests on the official authorities.
    OfficialTrust,
    /// The last digit of a FINESS number is a key.
    FinessKey,
}

/// How bad it is when a rule is broken. The order is from bad to harmless.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that is meant to work will not.
    Error,
    /// Something may not be meant.
    Warning,
    /// Something to know.
    Note,
}

impl Severity {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One row of the table.
struct Row {
    id: &'static str,
    severity: Severity,
    text: &'static str,
    source: &'static str,
    remedy: &'static str,
}

impl Rule {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::AuthCli,
        Self::IgcSante,
        Self::Environment,
        Self::InsiCn,
        Self::InsiOnly,
        Self::StructureId,
        Self::OwnStructure,
        Self::SectorSite,
        Self::SectorLegalEntity,
        Self::Vendor,
        Self::PscClient,
        Self::KeyShared,
        Self::Ambiguous,
        Self::Validity,
        Self::Revoked,
        Self::OfficialTrust,
        Self::FinessKey,
    ];

    const fn row(self) -> Row {
        match self {
            Self::AuthCli => Row {
                id: "auth-cli",
                severity: Severity::Warning,
                text: "Only ORG AUTH_CLI certificates open TLS connections: never SIGN or CONF, never those of the SERV \
                       and PRO offers, whatever their names say. Key usage and extended key usage decide.",
                source: "ANS guides 001 and 003 (products to order); MSSanté, EXI_PSC_24",
                remedy: "keep it out of this folder, or order a certificate of the offer ORG, usage AUTH_CLI",
            },
            Self::IgcSante => Row {
                id: "igc-sante",
                severity: Severity::Warning,
                text: "A certificate that is shown to a service was issued by IGC-Santé.",
                source: "IGC-Santé certificate profile: OU=IGC-SANTE or OU=IGC-SANTE TEST in the issuer",
                remedy: "order the certificate from IGC-Santé, and keep this one out of the folder",
            },
            Self::Environment => Row {
                id: "environment",
                severity: Severity::Error,
                text: "TEST certificates never reach a production service, nor production certificates a test service.",
                source: "ANS guide 002; ROR documentation (bac-à-sable: IGC-SANTE TEST; production: IGC-SANTE)",
                remedy: "keep the certificates of the two environments in folders of two gateways, or set `environment` \
                         of the service that really is in the other one",
            },
            Self::InsiCn => Row {
                id: "insi-cn",
                severity: Severity::Error,
                text: "INSi wants the CN `INSI-AUTO` or `INSI-MANU` to the letter: capitals, a plain hyphen, no space.",
                source: "ANS guides 000, 001 and 003; INSi fault desir_560",
                remedy: "order the certificate again with the right CN: `relais csr` checks it beforehand",
            },
            Self::InsiOnly => Row {
                id: "insi-only",
                severity: Severity::Error,
                text: "A certificate for INSi goes to INSi and nowhere else, and INSi is shown no other.",
                source: "ANS guides 000, 001 and 003",
                remedy: "bind another certificate, or remove the binding",
            },
            Self::StructureId => Row {
                id: "structure-id",
                severity: Severity::Warning,
                text: "The OU of a certificate is the identifier of its structure: `1` and a FINESS number where it is to \
                       serve as a tenant's.",
                source: "IGC-Santé certificate profile; nomenclature TRE_G07",
                remedy: "list it under [vendor] if it is the éditeur's; otherwise order one in the structure's name",
            },
            Self::OwnStructure => Row {
                id: "own-structure",
                severity: Severity::Error,
                text: "A certificate speaks for the structure in its OU, or for a site (EG) of the legal entity (EJ) in its \
                       OU, and for nobody else.",
                source: "ANS guide 001: each legal entity has its own; groups and GHT cannot share one",
                remedy: "bind the tenant to its own certificate, or correct its `legal_entity` in the table of tenants",
            },
            Self::SectorSite => Row {
                id: "sector-site",
                severity: Severity::Warning,
                text: "Pharmacies (officines) and SPSTI use a certificate of the site (EG) itself: that of the legal entity \
                       does not speak for it.",
                source: "ANS guides 000 (SPSTI) and 003 (officine)",
                remedy: "order a certificate with the site's own FINESS number",
            },
            Self::SectorLegalEntity => Row {
                id: "sector-legal-entity",
                severity: Severity::Note,
                text: "In hospitals and the médico-social sector the certificate is the legal entity's (EJ); one of a site \
                       (EG) is tolerated until its renewal.",
                source: "ANS guide 001 (médico-social); hospital guide v0.8",
                remedy: "order the renewal with the FINESS number of the legal entity",
            },
            Self::Vendor => Row {
                id: "vendor",
                severity: Severity::Error,
                text: "The éditeur's certificate is not shown where the service wants the structure's own.",
                source: "ANS guide 001: the certificate is not in the éditeur's name; exceptions by service: ROR, PSC",
                remedy: "order a certificate in the structure's name, or set `owner = \"vendor\"` where the service says so",
            },
            Self::PscClient => Row {
                id: "psc-client",
                severity: Severity::Error,
                text: "Each client of Pro Santé Connect (`client_id`) has a certificate of its own. Its CN need not be the \
                       `client_id`, and Relais never compares them.",
                source: "ANS guide 002, questions and answers",
                remedy: "order a certificate for each client_id and bind each to its own",
            },
            Self::KeyShared => Row {
                id: "key-shared",
                severity: Severity::Warning,
                text: "A key pair is in one file, for one structure, on one instance: it is never duplicated.",
                source: "ANS guides 000 and 001: one certificate for each instance, the key never leaves its server",
                remedy: "keep one, and order another with a key of its own: `relais csr` makes one",
            },
            Self::Ambiguous => Row {
                id: "ambiguous",
                severity: Severity::Error,
                text: "Where two certificates are equally right, down to the second they began, Relais does not guess.",
                source: "Relais: fail closed",
                remedy: "remove the one that is not meant, or name the other in [[bindings]]",
            },
            Self::Validity => Row {
                id: "validity",
                severity: Severity::Warning,
                text: "A certificate serves within its dates. Its renewal should lie beside it a month before it ends.",
                source: "ANS guides: three years, notice one month before; expiry is an outage of the service",
                remedy: "order the renewal: `relais csr`, then `relais install`",
            },
            Self::Revoked => Row {
                id: "revoked",
                severity: Severity::Error,
                text: "A revoked certificate is not used, whatever its dates.",
                source: "DMP EX_AIR-080; MSSanté Référentiel #2, ECO.1.1.6 and .7; RFC 5280 section 5",
                remedy: "remove it, and order another with a new key",
            },
            Self::OfficialTrust => Row {
                id: "official-trust",
                severity: Severity::Warning,
                text: "In production, a trust file that names IGC-Santé's authorities holds the official ones.",
                source: "SHA-256 fingerprints of AC RACINE IGC-SANTE ELEMENTAIRE and AC IGC-SANTE ELEMENTAIRE ORGANISATIONS",
                remedy: "download them from http://igc-sante.esante.gouv.fr/PC/ and compare their fingerprints with docs/rules.md",
            },
            Self::FinessKey => Row {
                id: "finess-key",
                severity: Severity::Note,
                text: "The last digit of a FINESS number is the Luhn key of the others. A few real numbers are not like that.",
                source: "FINESS register (observed)",
                remedy: "compare the number with the FINESS register",
            },
        }
    }

    /// The word that reports use, and that does not change: `insi-cn`.
    pub fn id(self) -> &'static str {
        self.row().id
    }

    /// How bad it is to break it.
    pub fn severity(self) -> Severity {
        self.row().severity
    }

    /// What it says.
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// Where it comes from.
    pub fn source(self) -> &'static str {
        self.row().source
    }

    /// What to do when it is broken.
    pub fn remedy(self) -> &'static str {
        self.row().remedy
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
