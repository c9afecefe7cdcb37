//! What goes wrong: services, files, the configuration and the clock.

use std::sync::Arc;
use std::time::Duration;

use relais::simulator::pki::write_private;
use tokio::time::sleep;

use super::scene::{Random, SERVICES, Scene, TENANTS, VERSIONS};
use super::wire::Mode;

const HOUR: i64 = 3600;

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Troubles the services, until it is aborted.
pub async fn of_services(scene: Arc<Scene>, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        sleep(milliseconds(20 + random.below(150))).await;
        let wire = &scene.wires[random.below(SERVICES.len() as u64) as usize];
        match random.below(4) {
            0 => {
                scene.note("service died");
                wire.set(Mode::Refuses);
                sleep(milliseconds(random.below(150))).await;
            }
            1 => {
                scene.note("service stalled");
                wire.set(Mode::Stalls);
                // Sometimes longer than any deadline.
                let most = if random.below(10) == 0 { 1500 } else { 200 };
                sleep(milliseconds(random.below(most))).await;
            }
            _ => {
                scene.note("connections reset");
                wire.cut();
            }
        }
        wire.set(Mode::Passes);
    }
}

/// Troubles everything that a reload reads, and the clock, so many times.
pub async fn of_files(scene: Arc<Scene>, seed: u64) {
    let mut random = Random::new(seed);
    let mut version = 0;
    loop {
        sleep(milliseconds(random.below(60))).await;
        let tenant = random.below(TENANTS as u64) as usize;
        match random.below(12) {
            0..5 => renew(&scene, tenant, &mut random).await,
            5 => remove(&scene, tenant, &mut random).await,
            6 => spoil(&scene, tenant, &mut random).await,
            7 => foreign(&scene, tenant, &mut random).await,
            8..10 => {
                version = 1 - version;
                configure(&scene, version, &mut random).await;
            }
            10 => {
                scene.note("clock leapt");
                let hours = [2, -2, 24 * 366 * 4, -24 * 366 * 4][random.below(4) as usize];
                scene.gateway.app.clock.set(hours * HOUR);
                sleep(milliseconds(random.below(100))).await;
                scene.gateway.app.clock.set(0);
            }
            _ => scene.reload().await,
        }
    }
}

/// Puts a new certificate in the place of a tenant's, at once or in two halves.
async fn renew(scene: &Scene, tenant: usize, random: &mut Random) {
    scene.note("certificate renewed");
    let next = scene.issue(tenant);
    let file = scene.file(tenant);
    if random.below(2) == 0 {
        let part = random.below(next.pem.len() as u64) as usize;
        write_private(&file, &next.pem[..part]).unwrap();
        sleep(milliseconds(random.below(30))).await;
        if random.below(2) == 0 {
            scene.reload().await;
        }
    }
    write_private(&file, &next.pem).unwrap();
    scene.reload().await;
    let before = std::mem::replace(&mut scene.current.lock().unwrap()[tenant], next);
    scene.judge.withdrawn(&before.sha256, "renewed");
}

/// Takes a tenant's certificate away, and gives it another after a while.
async fn remove(scene: &Scene, tenant: usize, random: &mut Random) {
    scene.note("certificate removed");
    std::fs::remove_file(scene.file(tenant)).unwrap();
    scene.reload().await;
    let before = scene.current.lock().unwrap()[tenant].clone();
    scene.judge.withdrawn(&before.sha256, "removed");
    sleep(milliseconds(random.below(100))).await;
    renew(scene, tenant, random).await;
}

/// Damages a tenant's file, and mends it after a while.
async fn spoil(scene: &Scene, tenant: usize, random: &mut Random) {
    scene.note("file broken");
    let mut bytes = scene.current.lock().unwrap()[tenant]
        .pem
        .clone()
        .into_bytes();
    let at = random.below(bytes.len() as u64) as usize;
    match random.below(3) {
        0 => bytes.truncate(at),
        1 => bytes[at] = b'!',
        _ => bytes.clear(),
    }
    write_private(&scene.file(tenant), &bytes).unwrap();
    scene.reload().await;
    sleep(milliseconds(random.below(50))).await;
    renew(scene, tenant, random).await;
}

/// Writes another tenant's certificate over a tenant's: then this one has none. One that is in another file already
/// would be no news, and leave what was there before in use.
async fn foreign(scene: &Scene, tenant: usize, random: &mut Random) {
    let other = (tenant + 1 + random.below(TENANTS as u64 - 1) as usize) % TENANTS;
    scene.note("file written over by another's");
    let others = scene.issue(other);
    write_private(&scene.file(tenant), &others.pem).unwrap();
    scene.reload().await;
    let own = scene.current.lock().unwrap()[tenant].clone();
    scene
        .judge
        .withdrawn(&own.sha256, "written over by another's");
    sleep(milliseconds(random.below(50))).await;
    renew(scene, tenant, random).await;
    scene
        .judge
        .withdrawn(&others.sha256, "written over by its tenant's");
}

/// Puts other callers into the configuration, at once or after something that is none.
pub async fn configure(scene: &Scene, version: usize, random: &mut Random) {
    scene.note("callers changed");
    let text = scene.configuration(version);
    let file = &scene.gateway.site.configuration;
    scene.judge.may_come(VERSIONS[version].rights);
    let cut = match random.below(3) {
        // In the middle of a token: what ends at the end of a line might be a configuration of its own.
        0 => Some(text.rfind("sha256:").unwrap() + random.below(60) as usize),
        // All of the configuration but its callers.
        1 => text.find("[[callers]]"),
        _ => None,
    };
    if let Some(cut) = cut {
        std::fs::write(file, &text[..cut]).unwrap();
        scene.reload().await;
    }
    std::fs::write(file, &text).unwrap();
    scene.reload().await;
    scene.judge.have_come();
}

/// Puts everything in order, for good.
pub async fn ends(scene: &Scene) {
    for wire in &scene.wires {
        wire.set(Mode::Passes);
    }
    scene.gateway.app.clock.set(0);
    let mut random = Random::new(1);
    for tenant in 0..TENANTS {
        renew(scene, tenant, &mut random).await;
    }
    configure(scene, VERSIONS.len() - 1, &mut random).await;
}
