//! What must be refused, by the gateway or by a service through it: a table, and the odd structures that it needs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use jiff::Timestamp;

use crate::identity::finess::Finess;
use crate::services::{Environment, WantedCertificate};
use crate::simulator::pki::{self, Pki, Purpose, Request as Order};
use crate::simulator::requests;
use crate::simulator::server::Simulator;
use crate::simulator::services::{ANNUAIRE_API_KEY, SOFTWARE_NUMBER};
use crate::simulator::site::{Site, Stand, sample_finess};

/// A request that is not let through, or not without a word.
#[derive(Debug)]
pub(super) struct Case {
    /// What is tried.
    pub(super) what: &'static str,
    pub(super) request: Request<Bytes>,
    /// How often it is sent, at most, until what is expected comes back.
    pub(super) times: usize,
    pub(super) expected: Expected,
}

/// What must come back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// The gateway's own refusal, with this status and `code`. The request reaches no simulator.
    Gateway(u16, &'static str),
    /// A service's own answer, untouched: with this status, and this text in its body.
    Service(u16, &'static str),
}

impl Expected {
    /// What came back in a few words, and whether it is this.
    pub(super) fn judge(&self, answer: &Response<Bytes>, reached: bool) -> (String, bool) {
        let status = answer.status().as_u16();
        let code = problem_code(answer);
        match self {
            Self::Gateway(expected, word) => {
                let came = code.as_deref().unwrap_or("not of the gateway");
                let right = status == *expected && came == *word && !reached;
                (format!("{status} {came}"), right)
            }
            Self::Service(expected, text) => {
                let found =
                    code.is_none() && String::from_utf8_lossy(answer.body()).contains(*text);
                let came = match &code {
                    Some(code) => code.as_str(),
                    None if found => text,
                    None => "another answer",
                };
                (format!("{status} {came}"), found && status == *expected)
            }
        }
    }
}

/// The `code` of the gateway's own answers.
fn problem_code(answer: &Response<Bytes>) -> Option<String> {
    let of_gateway = answer.headers().get(CONTENT_TYPE)? == "application/problem+json";
    let json: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
    of_gateway.then(|| json["code"].as_str().unwrap_or_default().to_owned())
}

/// Structures and services with which something is wrong.
#[derive(Debug)]
pub(super) struct Odd {
    /// Nobody's number.
    pub(super) unknown: Finess,
    /// Its certificate for INSi has the CN `insi-auto`.
    pub(super) near_miss: Finess,
    /// It has a certificate for signatures only.
    pub(super) only_sign: Finess,
    /// Its certificate has expired.
    pub(super) expired: Finess,
    /// Its certificate is of production's hierarchy.
    pub(super) production: Finess,
    /// All is well with its certificate, which no service was told of.
    pub(super) newcomer: Finess,
    /// Its certificate is revoked.
    pub(super) revoked: Finess,
    /// It has two certificates that nothing tells apart.
    pub(super) twin: Finess,
    /// The newcomer's certificate is pinned to it.
    pub(super) borrower: Finess,
    /// The éditeur's certificate is pinned to it.
    pub(super) client: Finess,
    /// A pharmacy of the first tenant, without certificate of its own.
    pub(super) pharmacy: Finess,
    /// A service that accepts certificates of another authority only, and one that asks for none.
    _elsewhere: [Simulator; 2],
}

/// The éditeur's structure: a SIRET number.
const VENDOR: &str = "339172288100052";

/// The numbers of odd structures begin here, out of the way of the tenants'.
const ODD: usize = 910_000;

impl Odd {
    /// Makes them, before the gateway reads its configuration.
    pub(super) fn prepare(site: &Site) -> io::Result<Self> {
        let folder = site.directory.join("certs").join("odd");
        fs::create_dir_all(&folder)?;
        let issue = |number: usize, pki: &Pki, order: Order<'_>| {
            let finess = sample_finess(ODD + number);
            let structure = format!("1{finess}");
            let issued = pki.issue(&Order {
                structure: &structure,
                organization: "STRUCTURE FICTIVE SINGULIERE",
                ..order
            });
            let file = folder.join(format!("{finess}.pem"));
            pki::write_private(&file, issued.pem()).map(|()| (finess, issued))
        };
        let now = Timestamp::now().as_second();
        let plain = || Order::new("", "Logiciel de demonstration");
        let sign = Order {
            purpose: Purpose::Sign,
            ..plain()
        };
        let expired = Order {
            not_before: Some(now - 3 * 365 * 86_400),
            not_after: Some(now - 86_400),
            ..plain()
        };
        let (revoked, certificate) = issue(6, &site.pki, plain())?;
        let list = (site.pki).revoke(&[&certificate.serial()], now - 3600, now + 86_400);
        fs::write(site.directory.join("aci-el-org.crl"), list.der())?;
        let twin = || Order {
            not_before: Some(now - 86_400),
            ..plain()
        };
        let (twin_finess, _) = issue(10, &site.pki, twin())?;
        let structure = format!("1{twin_finess}");
        let second = site.pki.issue(&Order {
            structure: &structure,
            ..twin()
        });
        pki::write_private(&folder.join("twin.pem"), second.pem())?;
        let vendor = site.pki.issue(&Order::new(VENDOR, "Editeur fictif"));
        pki::write_private(&folder.join("editeur.pem"), vendor.pem())?;
        let odd = Self {
            unknown: sample_finess(ODD),
            near_miss: issue(1, &site.pki, Order::new("", "insi-auto"))?.0,
            only_sign: issue(2, &site.pki, sign)?.0,
            expired: issue(3, &site.pki, expired)?.0,
            production: issue(4, &Pki::new(Environment::Production), plain())?.0,
            newcomer: issue(5, &site.pki, plain())?.0,
            revoked,
            twin: twin_finess,
            borrower: sample_finess(ODD + 7),
            client: sample_finess(ODD + 8),
            pharmacy: sample_finess(ODD + 9),
            _elsewhere: declare_services(site)?,
        };
        odd.tell(site)?;
        Ok(odd)
    }

    /// Adds what the gateway is told of them: wrong bindings, the éditeur, a pharmacy, the revocation list.
    fn tell(&self, site: &Site) -> io::Result<()> {
        let append = |file: &Path, text: String| {
            let before = fs::read_to_string(file)?;
            fs::write(file, before + &text)
        };
        let table = site.directory.join("tenants.csv");
        let line = format!(
            "{},{},PHARMACIE FICTIVE,officine\n",
            self.pharmacy, site.tenants[0]
        );
        append(&table, line)?;
        let mut text = format!(
            "\n[vendor]\nstructures = [\"{VENDOR}\"]\n\n[revocation]\ncrls = [\"aci-el-org.crl\"]\n"
        );
        for (tenant, file) in [
            (self.borrower, self.newcomer.to_string()),
            (self.client, "editeur".to_owned()),
        ] {
            text += &format!(
                "\n[[bindings]]\ntenant = \"{tenant}\"\nservice = \"dmp\"\nfile = \"certs/odd/{file}.pem\"\n"
            );
        }
        append(&site.configuration, text)
    }
}

/// Adds services to the configuration that are declared wrongly, and one that knows another authority only.
fn declare_services(site: &Site) -> io::Result<[Simulator; 2]> {
    let elsewhere = Stand::new("autre-igc");
    let authority = Pki::new(Environment::Test);
    fs::write(
        site.directory.join("trust").join("autre-igc.pem"),
        authority.authority_pem(),
    )?;
    let simulator = elsewhere.start(&authority, &site.register)?;
    let mut text = fs::read_to_string(&site.configuration)?;
    let mut declare = |name: &str,
                       simulator: &Simulator,
                       trust: &str,
                       wanted: WantedCertificate| {
        let written = write!(
            text,
            "\n[services.{name}]\nurl = \"https://localhost:{}\"\naddress = \"{}\"\ntrust = \"trust/{trust}.pem\"\n\
             certificate = \"{}\"\ntls = \"1.2+\"\n",
            simulator.address.port(),
            simulator.address,
            wanted.as_str(),
        );
        written.expect("writing to a String does not fail");
    };
    let (org, insi) = (WantedCertificate::OrgAuthCli, WantedCertificate::InsiAuto);
    let none = WantedCertificate::None;
    declare("autre-igc", &simulator, "autre-igc", org);
    declare("inconnu", &simulator, "igc-sante-test", org);
    let nobody = Stand {
        certificate: none,
        ..Stand::new("sans-certificat")
    };
    let nobody = nobody.start(&site.pki, &site.register)?;
    declare("sans-certificat", &nobody, "igc-sante-test", org);
    for (name, of, wanted) in [
        ("insi-faux", "insi-auto", org),
        ("mssante-faux", "mssante", insi),
        ("annuaire-nu", "annuaire", none),
    ] {
        let found = site.simulators.iter().find(|(stand, _)| stand.name == of);
        let (_, simulator) = found.expect("the demonstration has all services");
        declare(name, simulator, "igc-sante-test", wanted);
    }
    fs::write(&site.configuration, text)?;
    Ok([simulator, nobody])
}

/// The table. Rows may be added anywhere but after the last: it uses a rate up.
pub(super) fn all(site: &Site, odd: &Odd) -> Vec<Case> {
    use Expected::{Gateway, Service};
    let tenant = site.tenants[0];
    let case = |what, request, expected| Case {
        what,
        request,
        times: 1,
        expected,
    };
    let dmp = |tenant| requests::dmp(tenant, tenant);
    vec![
        case(
            "no tenant named",
            requests::bare("/dmp/x"),
            Gateway(400, "tenant_missing"),
        ),
        case(
            "something that is not a FINESS number",
            requests::bare("/@06078500X/dmp/x"),
            Gateway(400, "tenant_malformed"),
        ),
        case(
            "two tenants in one request",
            requests::get(tenant, &format!("/@{}/dmp/x", odd.newcomer)),
            Gateway(400, "tenant_ambiguous"),
        ),
        case(
            "a service that is not configured",
            requests::get(tenant, "/ameli/x"),
            Gateway(404, "service_unknown"),
        ),
        case(
            "INSi, for a structure without a certificate for it",
            requests::insi(odd.newcomer, "insi-auto", SOFTWARE_NUMBER),
            Gateway(503, "certificate_missing"),
        ),
        case(
            "two certificates that began in the same second",
            dmp(odd.twin),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a tenant that nobody knows",
            dmp(odd.unknown),
            Gateway(404, "tenant_unknown"),
        ),
        case(
            "a site (EG) without certificate: under its legal entity's, as it should",
            dmp(site.establishment),
            Service(200, "<Recu"),
        ),
        case(
            "a pharmacy (EG) without certificate: not under its legal entity's",
            dmp(odd.pharmacy),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a certificate of another structure, pinned by mistake",
            dmp(odd.borrower),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "the éditeur's certificate, where DMP wants the structure's own",
            dmp(odd.client),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a revoked certificate",
            dmp(odd.revoked),
            Gateway(503, "certificate_revoked"),
        ),
        case(
            "a certificate for INSi whose CN is insi-auto",
            requests::insi(odd.near_miss, "insi-auto", SOFTWARE_NUMBER),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a certificate for signatures (ORG SIGN)",
            dmp(odd.only_sign),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "an expired certificate",
            dmp(odd.expired),
            Gateway(503, "certificate_expired"),
        ),
        case(
            "a certificate of production in a gateway for tests",
            dmp(odd.production),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a service that accepts another authority's certificates only",
            requests::get(tenant, "/autre-igc/x"),
            Gateway(502, "certificate_rejected_by_upstream"),
        ),
        case(
            "a service whose own certificate is another authority's",
            requests::get(tenant, "/inconnu/x"),
            Gateway(502, "upstream_untrusted"),
        ),
        case(
            "a service that asks for no certificate",
            requests::get(tenant, "/sans-certificat/x"),
            Gateway(502, "certificate_not_requested"),
        ),
        case(
            "DMP: an assertion (VIHF) of another structure",
            requests::dmp(tenant, odd.newcomer),
            Service(500, "S:structure_incoherente"),
        ),
        case(
            "DMP: an assertion of a site of the same legal entity, which is accepted",
            requests::dmp(tenant, site.establishment),
            Service(200, "<Recu"),
        ),
        case(
            "DMP: something else than SOAP",
            requests::get(tenant, "/dmp/v2/services/repository"),
            Service(405, "SOAP"),
        ),
        case(
            "INSi: shown a certificate that is not for it",
            requests::insi(tenant, "insi-faux", SOFTWARE_NUMBER),
            Service(500, "desir_560"),
        ),
        case(
            "INSi: a software that is not authorised",
            requests::insi(tenant, "insi-auto", "INCONNU"),
            Service(500, "desir_550"),
        ),
        case(
            "Pro Santé Connect: the client_id of another certificate",
            requests::token(odd.newcomer, "psc", &requests::client_id(tenant)),
            Service(401, "invalid_client"),
        ),
        case(
            "MSSanté: shown the certificate that is for INSi",
            requests::get(tenant, "/mssante-faux/x"),
            Service(200, "Client certificat inconnu"),
        ),
        case(
            "ROR: a certificate whose subject it was not told",
            requests::token(odd.newcomer, "ror", "x"),
            Service(401, "invalid_client"),
        ),
        case(
            "ROR: FHIR without token",
            requests::ror_search(tenant, None),
            Service(401, "OperationOutcome"),
        ),
        case(
            "Annuaire Santé: without API key",
            requests::annuaire(tenant, "annuaire-nu", None),
            Service(401, "OperationOutcome"),
        ),
        Case {
            // More than a second's worth, however slow this machine: it refuses as soon as they come fast enough.
            times: 500,
            ..case(
                "Annuaire Santé: more than 17 requests a second",
                requests::annuaire(tenant, "annuaire-nu", Some(ANNUAIRE_API_KEY)),
                Service(429, "throttled"),
            )
        },
    ]
}
