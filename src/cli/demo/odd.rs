//! Structures and services with which something is wrong, as the cases need them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::identity::finess::Finess;
use crate::services::{Environment, WantedCertificate};
use crate::simulator::pki::{self, Pki, Purpose, Request as Order};
use crate::simulator::server::Simulator;
use crate::simulator::site::{Site, Stand, sample_finess};

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
