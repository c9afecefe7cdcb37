//! Who gets which pool. Nothing is dialled: a pool that is not used costs next to nothing.

use std::num::NonZeroUsize;

use super::*;
use crate::identity::profile::{InsiMode, Profile};
use crate::identity::select::tests::{generation, profile_of, service};
use crate::identity::structure::StructureId;
use crate::simulator::site::sample_finess;

const AUTH_CLI: &str = "dmp";
const INSI: &str = "insi-auto";
const NOBODY: &str = "annuaire";

fn table(generations: Vec<Arc<Generation>>) -> Table {
    let named = |name: &str, certificate| {
        Arc::new(Service {
            name: name.into(),
            ..service(certificate)
        })
    };
    let services = [
        named(AUTH_CLI, WantedCertificate::OrgAuthCli),
        named(INSI, WantedCertificate::InsiAuto),
        named("ror", WantedCertificate::OrgAuthCli),
        named(NOBODY, WantedCertificate::None),
    ];
    let metrics = Metrics::new();
    let outbound = Outbound::new(&services, 10, NonZeroUsize::MIN, Arc::clone(&metrics)).unwrap();
    Table::new(&services, generations, &outbound, &metrics)
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
