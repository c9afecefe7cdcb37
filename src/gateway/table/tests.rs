//! Who gets which pool. Nothing is dialled: a pool that is not used costs next to nothing.

mod renewed;

use std::num::NonZeroUsize;

use super::*;
use crate::config::{Binding, BoundBy, Tenants};
use crate::gateway::reply::Code;
use crate::identity::profile::{InsiMode, Profile};
use crate::identity::registry::Registry;
use crate::identity::select::tests::{generation, profile_of, service};
use crate::identity::states::now;
use crate::identity::structure::StructureId;
use crate::identity::tenants::{self, Sector, Structure, Structures};
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::trust::Anchors;
use crate::services::{Owner, WantedCertificate};
use crate::simulator::site::sample_finess;

const AUTH_CLI: &str = "dmp";
const INSI: &str = "insi-auto";
const NOBODY: &str = "annuaire";

fn table(generations: Vec<Arc<Generation>>) -> Table {
    table_of(generations, Registry::default())
}

fn table_of(generations: Vec<Arc<Generation>>, registry: Registry) -> Table {
    table_and_outbound(generations, registry).0
}

fn table_and_outbound(
    generations: Vec<Arc<Generation>>,
    registry: Registry,
) -> (Table, Arc<Outbound>) {
    let named = |name: &str, certificate, owner| {
        Arc::new(Service {
            name: name.into(),
            owner,
            ..service(certificate)
        })
    };
    let services = [
        named(AUTH_CLI, WantedCertificate::OrgAuthCli, Owner::Structure),
        named(INSI, WantedCertificate::InsiAuto, Owner::Structure),
        named("ror", WantedCertificate::OrgAuthCli, Owner::Vendor),
        named(NOBODY, WantedCertificate::None, Owner::Structure),
    ];
    let metrics = Metrics::new();
    let anchors = Anchors::of(services.iter().map(|service| &service.trust)).unwrap();
    let outbound = Outbound::new(&anchors, 10, NonZeroUsize::MIN, Arc::clone(&metrics));
    let table = Table::new(
        &services,
        generations,
        Arc::new(registry),
        Arc::default(),
        Terms::default(),
        &outbound,
        &metrics,
    );
    (table, outbound)
}

/// A certificate of a sample structure that is valid today.
fn of(number: usize, serial: &str) -> Profile {
    Profile {
        structure: Some(StructureId::from(sample_finess(number))),
        not_before: now() - 1000,
        not_after: now() + 1000,
        ..profile_of(serial)
    }
}

fn pool<'a>(table: &'a Table, tenant: usize, service: &str) -> Result<&'a Arc<Pool>, Code> {
    let (index, _) = table.service(service).unwrap();
    table
        .pool(Some(sample_finess(tenant)), index)
        .map_err(|problem| problem.code)
}

fn serial(pool: &Pool) -> &str {
    &pool.generation().unwrap().identity().profile.serial
}

#[test]
fn each_tenant_and_service_has_a_pool_of_its_own_under_its_own_certificate() {
    let table = table(vec![generation(of(0, "A")), generation(of(1, "B"))]);
    let mut pools = Vec::new();
    for (tenant, own) in [(0, "A"), (1, "B")] {
        for name in [AUTH_CLI, "ror"] {
            let found = pool(&table, tenant, name).unwrap();
            assert_eq!(serial(found), own);
            assert_eq!(&*found.service().name, name);
            pools.push(Arc::as_ptr(found));
        }
    }
    pools.sort_unstable();
    pools.dedup();
    assert_eq!(pools.len(), 4);
}

#[test]
fn a_certificate_for_insi_serves_insi_alone() {
    let insi = Profile {
        insi: Some(InsiMode::Auto),
        ..of(0, "INSI")
    };
    let table = table(vec![generation(insi), generation(of(1, "PLAIN"))]);
    assert_eq!(serial(pool(&table, 0, INSI).unwrap()), "INSI");
    assert_eq!(
        pool(&table, 0, AUTH_CLI).unwrap_err(),
        Code::CertificateMissing
    );
    assert_eq!(pool(&table, 1, INSI).unwrap_err(), Code::CertificateMissing);
}

#[test]
fn a_service_that_wants_no_certificate_has_one_pool_for_everybody_and_shows_none() {
    let table = table(vec![generation(of(0, "A")), generation(of(1, "B"))]);
    let (index, _) = table.service(NOBODY).unwrap();
    let nobodys = table.pool(None, index).unwrap();
    assert!(nobodys.generation().is_none());
    for tenant in 0..3 {
        assert!(Arc::ptr_eq(pool(&table, tenant, NOBODY).unwrap(), nobodys));
    }
}

#[test]
fn who_is_not_named_or_not_known_gets_no_pool() {
    let table = table(vec![generation(of(0, "A"))]);
    let (index, _) = table.service(AUTH_CLI).unwrap();
    assert_eq!(
        table.pool(None, index).unwrap_err().code,
        Code::TenantMissing
    );
    assert_eq!(pool(&table, 1, AUTH_CLI).unwrap_err(), Code::TenantUnknown);
    assert_eq!(table.service("DMP").unwrap_err().code, Code::ServiceUnknown);
}

#[test]
fn a_certificate_that_names_no_finess_number_makes_no_tenant() {
    let siren = Profile {
        structure: Some(StructureId::parse("2732829320").unwrap()),
        ..of(0, "SIREN")
    };
    let nobody = Profile {
        structure: None,
        ..of(0, "NOBODY")
    };
    let table = table(vec![generation(siren), generation(nobody)]);
    assert!(table.tenants().is_empty());
    assert_eq!(table.generations().len(), 2);
}

#[test]
fn a_tenant_whose_certificate_has_ended_is_refused_and_told_so() {
    let ended = Profile {
        not_after: now() - 1,
        ..of(0, "A")
    };
    let table = table(vec![generation(ended)]);
    assert_eq!(
        pool(&table, 0, AUTH_CLI).unwrap_err(),
        Code::CertificateExpired
    );
}

const ENTITY: usize = 100;

/// Sample structures 1 to 3 as sites of the entity: a pharmacy, a hospital, one of an unknown sector.
fn sites() -> Structures {
    let site = |number: usize, sector| {
        let structure = Structure {
            legal_entity: Some(sample_finess(ENTITY)),
            sector,
            name: None,
        };
        (sample_finess(number), structure)
    };
    let inline = vec![
        site(1, Some(Sector::Officine)),
        site(2, Some(Sector::Hospital)),
        site(3, None),
    ];
    let (structures, mistakes) = tenants::load(&Tenants {
        files: Vec::new(),
        inline,
    });
    assert!(mistakes.is_empty(), "{mistakes:?}");
    structures
}

fn vendor() -> StructureId {
    StructureId::parse("339172288100052").unwrap()
}

fn of_vendor(serial: &str) -> Profile {
    Profile {
        structure: Some(vendor()),
        ..of(0, serial)
    }
}

fn bound(tenant: Option<usize>, service: &str, serial: &str) -> Binding {
    Binding {
        service: service.to_owned(),
        tenant: tenant.map(sample_finess),
        certificate: BoundBy::Fingerprint(of(0, serial).fingerprint),
        client_id: None,
    }
}

#[test]
fn a_site_without_certificate_uses_that_of_its_legal_entity_where_its_sector_allows() {
    let registry = Registry::new(sites(), Vec::new(), Vec::new());
    let table = table_of(vec![generation(of(ENTITY, "EJ"))], registry);
    let entitys = Arc::clone(pool(&table, ENTITY, AUTH_CLI).unwrap());
    for site in [2, 3] {
        assert!(Arc::ptr_eq(pool(&table, site, AUTH_CLI).unwrap(), &entitys));
        assert_eq!(
            pool(&table, site, INSI).unwrap_err(),
            Code::CertificateMissing
        );
    }
    assert_eq!(
        pool(&table, 1, AUTH_CLI).unwrap_err(),
        Code::CertificateRefusedByRule
    );
    assert_eq!(pool(&table, 4, AUTH_CLI).unwrap_err(), Code::TenantUnknown);
}

#[test]
fn a_sites_own_certificate_comes_before_its_legal_entitys_even_if_it_is_older() {
    let older = Profile {
        not_before: now() - 2000,
        ..of(2, "EG")
    };
    let insi = Profile {
        insi: Some(InsiMode::Auto),
        ..of(ENTITY, "INSI")
    };
    let registry = Registry::new(sites(), Vec::new(), Vec::new());
    let generations = [of(ENTITY, "EJ"), older, insi].map(generation).to_vec();
    let table = table_of(generations, registry);
    assert_eq!(serial(pool(&table, 2, AUTH_CLI).unwrap()), "EG");
    assert_eq!(serial(pool(&table, 2, INSI).unwrap()), "INSI");
    assert_eq!(serial(pool(&table, 3, AUTH_CLI).unwrap()), "EJ");
}

#[test]
fn the_editeurs_certificate_serves_known_tenants_without_one_where_the_service_takes_it() {
    let registry = Registry::new(sites(), Vec::new(), vec![vendor()]);
    let generations = [of_vendor("VENDOR"), of(5, "OWN")].map(generation).to_vec();
    let table = table_of(generations, registry);
    assert_eq!(serial(pool(&table, 2, "ror").unwrap()), "VENDOR");
    assert_eq!(serial(pool(&table, 5, "ror").unwrap()), "OWN");
    assert_eq!(
        pool(&table, 2, AUTH_CLI).unwrap_err(),
        Code::CertificateMissing
    );
    assert_eq!(pool(&table, 9, "ror").unwrap_err(), Code::TenantUnknown);
}

#[test]
fn what_is_pinned_comes_first_and_nothing_takes_its_place() {
    let older = Profile {
        not_before: now() - 2000,
        ..of(0, "PINNED")
    };
    let ended = Profile {
        not_after: now() - 1,
        ..of(1, "ENDED")
    };
    let bindings = vec![
        bound(Some(0), AUTH_CLI, "PINNED"),
        bound(Some(1), AUTH_CLI, "ENDED"),
        bound(Some(2), AUTH_CLI, "NOT LOADED"),
    ];
    let registry = Registry::new(sites(), bindings, Vec::new());
    let generations = [of(0, "LATER"), older, of(1, "VALID"), ended, of(2, "OWN")];
    let table = table_of(generations.map(generation).to_vec(), registry);
    assert_eq!(serial(pool(&table, 0, AUTH_CLI).unwrap()), "PINNED");
    assert_eq!(serial(pool(&table, 0, "ror").unwrap()), "LATER");
    assert_eq!(
        pool(&table, 1, AUTH_CLI).unwrap_err(),
        Code::CertificateExpired
    );
    assert_eq!(
        pool(&table, 2, AUTH_CLI).unwrap_err(),
        Code::CertificateMissing
    );
}

#[test]
fn no_binding_makes_a_structure_act_as_another() {
    let insi = Profile {
        insi: Some(InsiMode::Auto),
        ..of(2, "INSI")
    };
    let bindings = vec![
        bound(Some(0), AUTH_CLI, "FOREIGN"),
        bound(Some(1), AUTH_CLI, "EJ"),
        bound(Some(2), AUTH_CLI, "INSI"),
        bound(Some(3), AUTH_CLI, "VENDOR"),
        bound(None, "ror", "FOREIGN"),
    ];
    let registry = Registry::new(sites(), bindings, vec![vendor()]);
    let generations = [
        of(9, "FOREIGN"),
        of(ENTITY, "EJ"),
        insi,
        of_vendor("VENDOR"),
    ];
    let table = table_of(generations.map(generation).to_vec(), registry);
    for tenant in 0..4 {
        let refused = pool(&table, tenant, AUTH_CLI).unwrap_err();
        assert_eq!(refused, Code::CertificateRefusedByRule, "{tenant}");
    }
    assert_eq!(
        pool(&table, 0, "ror").unwrap_err(),
        Code::CertificateRefusedByRule
    );
    assert_eq!(serial(pool(&table, 9, "ror").unwrap()), "FOREIGN");
}

#[test]
fn a_name_that_many_certificates_have_means_the_tenants_own_before_its_legal_entitys() {
    let bindings = vec![Binding {
        certificate: BoundBy::CommonName("DUI".into()),
        ..bound(Some(2), AUTH_CLI, "")
    }];
    let registry = Registry::new(sites(), bindings, Vec::new());
    let older = Profile {
        not_before: now() - 2000,
        ..of(2, "EG")
    };
    let generations = [of(ENTITY, "EJ"), older, of(5, "OTHER")].map(generation);
    let table = table_of(generations.to_vec(), registry);
    assert_eq!(serial(pool(&table, 2, AUTH_CLI).unwrap()), "EG");
}

#[test]
fn a_certificate_that_ended_or_is_ambiguous_does_not_give_way_to_the_legal_entitys_or_the_editeurs()
{
    let ended = Profile {
        not_after: now() - 1,
        ..of(2, "ENDED")
    };
    let twin = |serial| Profile {
        not_before: now() - 5000,
        ..of(3, serial)
    };
    let early = Profile {
        not_before: now() + 5000,
        not_after: now() + 9000,
        ..of(4, "EARLY")
    };
    let mut generations = vec![of(ENTITY, "EJ"), of_vendor("VENDOR"), ended, early];
    generations.extend(["TWIN 1", "TWIN 2"].map(twin));
    let registry = Registry::new(sites(), Vec::new(), vec![vendor()]);
    let table = table_of(generations.into_iter().map(generation).collect(), registry);
    for service in [AUTH_CLI, "ror"] {
        assert_eq!(
            pool(&table, 2, service).unwrap_err(),
            Code::CertificateExpired
        );
        assert_eq!(
            pool(&table, 3, service).unwrap_err(),
            Code::CertificateRefusedByRule
        );
    }
    // One that has not begun was never in use: nothing changes before it does.
    assert_eq!(serial(pool(&table, 4, "ror").unwrap()), "VENDOR");
}

#[test]
fn a_name_pinned_for_all_tenants_means_each_ones_own() {
    let bindings = vec![Binding {
        certificate: BoundBy::CommonName("DUI".into()),
        ..bound(None, AUTH_CLI, "")
    }];
    let other = Profile {
        common_name: Some("OTHER".into()),
        not_before: now() - 10,
        ..of(0, "LATER")
    };
    let registry = Registry::new(sites(), bindings, Vec::new());
    let generations = [of(0, "A"), other, of(5, "B")].map(generation);
    let table = table_of(generations.to_vec(), registry);
    assert_eq!(serial(pool(&table, 0, AUTH_CLI).unwrap()), "A");
    assert_eq!(serial(pool(&table, 5, AUTH_CLI).unwrap()), "B");
    assert_eq!(serial(pool(&table, 0, "ror").unwrap()), "LATER");
}
