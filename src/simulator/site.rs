//! A whole site on this machine: a throw-away PKI, simulators of the services, tenants with certificates, and a
//! configuration that puts the gateway in front of them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Tenants};
use crate::gateway::table::{Table, Terms};
use crate::identity::finess::Finess;
use crate::identity::generation::Generation;
use crate::identity::load;
use crate::identity::profile::{InsiMode, Profile};
use crate::identity::registry::Registry;
use crate::identity::tenants::Structure;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::trust::Anchors;
use crate::services::{Environment, HttpVersions, TlsVersions, WantedCertificate};
use crate::simulator::pki::{self, Pki, Request};
use crate::simulator::server::{ClientCertificate, Settings, Simulator};
use crate::simulator::services::{ANNUAIRE_API_KEY, Behaviour, Coherence, Register};

/// Different keys in a site, at most. Making one takes a tenth of a second; a site of a thousand tenants shares
/// them, which real structures never may.
const KEYS_MAX: usize = 64;

/// The number of the sample establishment, out of the way of the tenants'.
const ESTABLISHMENT: usize = 900_000;

/// Where the gateway finds the API key of Annuaire Santé.
const API_KEY_FILE: &str = "annuaire.key";

/// How a simulated service differs from the plainest one.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// The service's name, in the catalogue or not.
    pub name: &'static str,
    /// What it wants to be shown.
    pub certificate: WantedCertificate,
    /// TLS versions that it speaks.
    pub tls: TlsVersions,
    /// HTTP versions that it offers.
    pub http: HttpVersions,
    /// Which service's rules it enforces.
    pub behaviour: Behaviour,
}

impl Stand {
    /// A service that wants an ORG AUTH_CLI certificate and enforces no rules.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            certificate: WantedCertificate::OrgAuthCli,
            tls: TlsVersions::Tls12And13,
            http: HttpVersions::Auto,
            behaviour: Behaviour::Plain,
        }
    }

    /// Starts a simulator of it that trusts the certificates of `pki`.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(&self, pki: &Pki, register: &Arc<Register>) -> io::Result<Simulator> {
        let client = match self.certificate {
            // A service with rules looks whether it is shown one all the same.
            WantedCertificate::None if self.behaviour != Behaviour::Plain => {
                ClientCertificate::Optional
            }
            WantedCertificate::None => ClientCertificate::NotRequested,
            _ => ClientCertificate::Required,
        };
        let settings = Settings {
            name: self.name,
            tls: self.tls,
            http: self.http,
            client,
            behaviour: self.behaviour,
        };
        Simulator::start(settings, pki, register)
    }
}

/// The services of the demonstration: all built-in ones, with their rules. DMP and MSSanté speak TLS 1.2 alone, as
/// the real ones do.
pub const DEMONSTRATION: [Stand; 9] = [
    Stand {
        tls: TlsVersions::Only12,
        http: HttpVersions::H1,
        behaviour: Behaviour::Dmp(Coherence::SameLegalEntity),
        ..Stand::new("dmp")
    },
    Stand {
        certificate: WantedCertificate::InsiAuto,
        http: HttpVersions::H1,
        behaviour: Behaviour::Insi(InsiMode::Auto),
        ..Stand::new("insi-auto")
    },
    Stand {
        certificate: WantedCertificate::InsiManu,
        http: HttpVersions::H1,
        behaviour: Behaviour::Insi(InsiMode::Manu),
        ..Stand::new("insi-manu")
    },
    Stand {
        behaviour: Behaviour::Psc,
        ..Stand::new("psc")
    },
    Stand {
        tls: TlsVersions::Only12,
        http: HttpVersions::H1,
        behaviour: Behaviour::Mssante,
        ..Stand::new("mssante")
    },
    Stand {
        tls: TlsVersions::Only13,
        behaviour: Behaviour::Ror,
        ..Stand::new("ror")
    },
    Stand {
        certificate: WantedCertificate::None,
        behaviour: Behaviour::RorFhir,
        ..Stand::new("ror-fhir")
    },
    Stand::new("roc"),
    Stand {
        certificate: WantedCertificate::None,
        behaviour: Behaviour::Annuaire,
        ..Stand::new("annuaire")
    },
];

/// A site whose simulators run for as long as it lives.
#[derive(Debug)]
pub struct Site {
    /// The folder that everything is in.
    pub directory: PathBuf,
    /// The gateway's configuration file.
    pub configuration: PathBuf,
    /// The PKI, to issue further certificates from.
    pub pki: Pki,
    /// The tenants.
    pub tenants: Vec<Finess>,
    /// A site (EG) of the first tenant, which has no certificate of its own.
    pub establishment: Finess,
    /// What the simulators know of the tenants.
    pub register: Arc<Register>,
    /// The simulators, in the order asked for.
    pub simulators: Vec<(Stand, Simulator)>,
}

/// Where the gateway of a site listens; port 0 lets the system choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// For applications.
    pub data: u16,
    /// For administration.
    pub admin: u16,
}

impl Site {
    /// Builds a site of `tenants` structures in a folder, which should be empty.
    ///
    /// # Errors
    /// When files cannot be written or simulators not be started.
    pub fn build(
        directory: &Path,
        tenants: usize,
        stands: &[Stand],
        ports: Ports,
    ) -> io::Result<Self> {
        let trust = directory.join("trust");
        fs::create_dir_all(directory.join("certs"))?;
        fs::create_dir_all(&trust)?;
        let pki = Pki::new(Environment::Test);
        fs::write(trust.join("igc-sante-test.pem"), pki.authority_pem())?;
        let tenants: Vec<_> = (0..tenants).map(sample_finess).collect();
        let establishment = sample_finess(ESTABLISHMENT);
        let mut register = Register::new();
        if let Some(first) = tenants.first() {
            register.legal_entities.insert(establishment, *first);
        }
        issue(directory, &pki, &tenants, stands, &mut register)?;
        fs::write(directory.join("tenants.csv"), table_of(&tenants, &register))?;
        pki::write_private(&directory.join(API_KEY_FILE), ANNUAIRE_API_KEY)?;
        let register = Arc::new(register);
        let start = |stand: &Stand| Ok((*stand, stand.start(&pki, &register)?));
        let simulators = stands.iter().map(start).collect::<io::Result<Vec<_>>>()?;
        let configuration = directory.join("relais.toml");
        fs::write(&configuration, configuration_of(&simulators, ports))?;
        Ok(Self {
            directory: directory.to_owned(),
            configuration,
            pki,
            tenants,
            establishment,
            register,
            simulators,
        })
    }

    /// The table that a gateway would make of it, were `sites` (each with its legal entity) its table of structures.
    ///
    /// # Panics
    /// When what the site wrote can no longer be read.
    pub fn table(&self, sites: impl IntoIterator<Item = (Finess, Finess)>) -> Table {
        let config = Config::load(&self.configuration)
            .expect("a site's configuration is valid")
            .config;
        let services: Vec<_> = config.services.into_iter().map(Arc::new).collect();
        let metrics = Metrics::new();
        let anchors = Anchors::of(services.iter().map(|service| &service.trust))
            .expect("a site's trust file is valid");
        let outbound = Outbound::new(&anchors, 1, NonZeroUsize::MIN, Arc::clone(&metrics));
        let identities = load::load(&config.identities)
            .expect("a site's folder can be read")
            .identities;
        let structure = |legal_entity| Structure {
            legal_entity: Some(legal_entity),
            ..Structure::default()
        };
        let tenants = Tenants {
            files: Vec::new(),
            inline: (sites.into_iter())
                .map(|(site, legal_entity)| (site, structure(legal_entity)))
                .collect(),
        };
        let (registry, _) = Registry::load(&tenants, Vec::new(), Vec::new());
        Table::new(
            &services,
            identities.into_iter().map(Generation::new).collect(),
            Arc::new(registry),
            Arc::default(),
            Terms::default(),
            &outbound,
            &metrics,
        )
    }
}

/// Issues the certificates of the tenants, and tells ROR the subjects of those that it will see.
fn issue(
    directory: &Path,
    pki: &Pki,
    tenants: &[Finess],
    stands: &[Stand],
    register: &mut Register,
) -> io::Result<()> {
    let names = common_names(stands);
    let keys = pki::generate_keys((tenants.len() * names.len()).min(KEYS_MAX));
    let mut keys = keys.iter().cycle();
    for (number, tenant) in tenants.iter().enumerate() {
        let folder = directory.join("certs").join(tenant.as_str());
        for (file, common_name) in &names {
            let ou = format!("1{tenant}");
            let organization = format!("STRUCTURE FICTIVE {}", number + 1);
            let issued = pki.issue(&Request {
                organization: &organization,
                key: keys.next().map(Arc::clone),
                ..Request::new(&ou, common_name)
            });
            fs::create_dir_all(&folder)?;
            pki::write_private(&folder.join(file), issued.pem())?;
            let profile = Profile::parse(&issued.cert_der).map_err(io::Error::other)?;
            if profile.insi.is_none() {
                register.subjects.insert(profile.subject.into());
            }
        }
    }
    Ok(())
}

/// The table of structures, as a gateway may be given it: whose sites are whose.
fn table_of(tenants: &[Finess], register: &Register) -> String {
    let mut text = "finess,legal_entity,name,sector\n".to_owned();
    for (number, tenant) in tenants.iter().enumerate() {
        text.push_str(&format!(
            "{tenant},,STRUCTURE FICTIVE {},medico-social\n",
            number + 1
        ));
    }
    for (site, entity) in &register.legal_entities {
        text.push_str(&format!(
            "{site},{entity},ETABLISSEMENT FICTIF,medico-social\n"
        ));
    }
    text
}

/// The certificates that a tenant needs for these services: file and CN.
fn common_names(stands: &[Stand]) -> Vec<(&'static str, &'static str)> {
    let all = [
        (
            WantedCertificate::OrgAuthCli,
            "auth_cli.pem",
            "Logiciel de demonstration",
        ),
        (WantedCertificate::InsiAuto, "insi-auto.pem", "INSI-AUTO"),
        (WantedCertificate::InsiManu, "insi-manu.pem", "INSI-MANU"),
    ];
    all.into_iter()
        .filter(|(wanted, ..)| stands.iter().any(|stand| stand.certificate == *wanted))
        .map(|(_, file, common_name)| (file, common_name))
        .collect()
}

fn configuration_of(simulators: &[(Stand, Simulator)], ports: Ports) -> String {
    let mut text = format!(
        "environment = \"test\"\n\n\
         [[listeners]]\naddress = \"127.0.0.1:{}\"\n\n\
         [identities]\ndirectory = \"certs\"\n\n\
         [tenants]\nfile = \"tenants.csv\"\n\n\
         [admin]\naddress = \"127.0.0.1:{}\"\n\n\
         [log]\naccess = \"access.log\"\n",
        ports.data, ports.admin
    );
    for (stand, simulator) in simulators {
        let tls = match stand.tls {
            TlsVersions::Only12 => "1.2",
            TlsVersions::Only13 => "1.3",
            TlsVersions::Tls12And13 => "1.2+",
        };
        let written = write!(
            text,
            "\n[services.{}]\nurl = \"https://localhost:{port}\"\naddress = \"{}\"\ntrust = \"trust/igc-sante-test.pem\"\n\
             certificate = \"{}\"\ntls = \"{tls}\"\n",
            stand.name,
            simulator.address,
            stand.certificate.as_str(),
            port = simulator.address.port(),
        );
        written.expect("writing to a String does not fail");
        if stand.behaviour == Behaviour::Annuaire {
            let name = stand.name;
            text += &format!(
                "\n[services.{name}.headers]\nESANTE-API-KEY = {{ file = \"{API_KEY_FILE}\" }}\n"
            );
        }
    }
    text
}

/// The `number`th made-up structure: TEST numbers have a letter in second place, which no real structure has.
///
/// # Panics
/// From a million structures on.
pub fn sample_finess(number: usize) -> Finess {
    assert!(number < 1_000_000, "sample numbers have six free digits");
    ('0'..='9')
        .filter_map(|key| format!("0B{number:06}{key}").parse::<Finess>().ok())
        .find(Finess::has_valid_key)
        .expect("of ten Luhn keys one is right")
}
