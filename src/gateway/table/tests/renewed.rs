//! A table that is made of the one before.

use super::*;

#[test]
fn a_choice_stands_until_something_that_it_rests_on_changes() {
    let [one, other] = [0, 1].map(|tenant| generation(of(tenant, "01")));
    let (before, outbound) = table_and_outbound(
        vec![Arc::clone(&one), Arc::clone(&other)],
        Registry::default(),
    );
    let renewed = |change: &dyn Fn(&mut Contents)| {
        let mut contents = before.contents();
        change(&mut contents);
        before.renewed(contents, &outbound, None).0
    };
    let own = pool(&before, 0, AUTH_CLI).unwrap();
    let renewal = generation(Profile {
        not_before: now() - 10,
        ..of(1, "02")
    });
    let table = renewed(&|contents| contents.generations.push(Arc::clone(&renewal)));
    assert!(Arc::ptr_eq(own, pool(&table, 0, AUTH_CLI).unwrap()));
    assert_eq!(serial(pool(&table, 1, AUTH_CLI).unwrap()), "02");
    let table = renewed(&|contents| drop(contents.generations.remove(0)));
    assert_eq!(pool(&table, 0, AUTH_CLI).err(), Some(Code::TenantUnknown));
    let issuer = one.identity().profile.issuer.to_string();
    let table = renewed(&|contents| {
        contents.revocations = Arc::new(Revocations::naming(&issuer, &[1]));
    });
    assert!(pool(&table, 0, AUTH_CLI).is_err(), "it is revoked");
    let table = renewed(&|contents| {
        let pinned = vec![bound(Some(0), AUTH_CLI, "03")];
        let (registry, _) = Registry::load(&Tenants::default(), pinned, Vec::new());
        contents.registry = Arc::new(registry);
    });
    assert!(pool(&table, 0, AUTH_CLI).is_err(), "another one is pinned");
}

#[test]
fn a_table_is_outdated_when_a_certificate_ends_or_the_clock_was_set_back() {
    let table = table(vec![generation(of(0, "A"))]);
    let now = now();
    assert!(!table.is_outdated(now));
    assert!(!table.is_outdated(now + 900));
    assert!(table.is_outdated(now + 1001));
    assert!(table.is_outdated(now - 60));
}
