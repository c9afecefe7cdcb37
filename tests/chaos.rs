//! Load while everything goes wrong at once: what must never happen has not, and afterwards all is as before.
//!
//! `CHAOS_REQUESTS` makes it longer (benches/chaos/run.sh), `CHAOS_SEED` repeats what a run did.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test may panic, and its crate has no other crate to be reached from"
)]

mod support;
#[path = "isolation/witness.rs"]
mod witness;
mod chaos {
    pub mod application;
    pub mod judge;
    pub mod scene;
    pub mod trouble;
    pub mod wire;
}

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaos::application::Load;
use chaos::scene::{CALLERS, SERVICES, Scene, TENANTS};
use chaos::trouble;
use http::Request;
use support::{Answered, eventually, token_of};
use tokio::task::JoinSet;

/// What fits into the gate.
const REQUESTS: u64 = 6_000;

const APPLICATIONS: u64 = 32;

/// Descriptors that may be more afterwards: a file that is being read, a worker's own.
const DESCRIPTORS: usize = 8;

static PANICS: AtomicU64 = AtomicU64::new(0);

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("it is a number"))
}

#[test]
fn whatever_goes_wrong_under_load_nobody_acts_as_another_and_all_is_served_afterwards() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    let requests = from_environment("CHAOS_REQUESTS").unwrap_or(REQUESTS);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = from_environment("CHAOS_SEED").unwrap_or(now);
    println!("CHAOS_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let scene = Arc::new(Scene::new(requests, &runtime));
    runtime.block_on(begins(&scene));
    let descriptors = descriptors();
    let load = Arc::new(Load {
        address: scene.gateway.address(),
        judge: Arc::clone(&scene.judge),
        tenants: scene.tenants.clone(),
        requests,
        made: AtomicU64::new(0),
        answers: Mutex::default(),
        slow: Mutex::default(),
    });
    let begun = Instant::now();
    let memory = runtime.block_on(under_load(&scene, &load, seed));
    let took = begun.elapsed();
    runtime.block_on(at_rest(&scene));
    runtime.block_on(closes(descriptors));
    let afterwards = (resident(), self::descriptors());
    runtime.block_on(serves_all(&scene));
    let (wrongs, wrong) = scene.judge.verdict();
    println!(
        "{requests} requests in {took:.1?}, {} seen by services, {wrongs} wrong, {} panics\nanswers {:#?}\ntroubles {:#?}\n\
         memory in MiB: at a tenth {}, at the end {}, afterwards {}; descriptors {descriptors}, afterwards {}",
        scene.judge.passed(),
        PANICS.load(Ordering::Relaxed),
        load.answers.lock().unwrap(),
        scene.troubles.lock().unwrap(),
        memory.0,
        memory.1,
        afterwards.0,
        afterwards.1,
    );
    for slow in load.slow.lock().unwrap().iter().take(50) {
        println!("slow: {slow}");
    }
    assert_eq!((wrongs, wrong), (0, Vec::new()));
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let answered = load.answers.lock().unwrap().get("200").copied();
    assert!(
        answered > Some(requests / 20),
        "hardly anything was answered"
    );
    assert!(
        resident() < memory.0 + memory.0 / 2 + 64,
        "memory has grown"
    );
}

/// The memory of this process when a tenth of the requests was made, and at the end.
async fn under_load(scene: &Arc<Scene>, load: &Arc<Load>, seed: u64) -> (usize, usize) {
    let troubles = [
        tokio::spawn(trouble::of_services(Arc::clone(scene), seed)),
        tokio::spawn(trouble::of_files(Arc::clone(scene), seed ^ 1)),
    ];
    let mut applications = JoinSet::new();
    for application in 0..APPLICATIONS {
        let seed = seed.wrapping_mul(APPLICATIONS).wrapping_add(application);
        applications.spawn(Arc::clone(load).run(seed));
    }
    let watched = tokio::spawn({
        let load = Arc::clone(load);
        async move {
            while load.made.load(Ordering::Relaxed) < load.requests / 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            resident()
        }
    });
    applications.join_all().await;
    let at_the_end = resident();
    for task in troubles {
        task.abort();
        let ended = task.await;
        assert!(
            ended.is_err_and(|error| error.is_cancelled()),
            "a trouble has ended by itself"
        );
    }
    trouble::ends(scene).await;
    (watched.await.unwrap(), at_the_end)
}

/// Waits until idle connections are closed, and nothing else is open.
async fn at_rest(scene: &Scene) {
    let pools = || scene.gateway.app.outbound.pools();
    eventually("nobody waits, and nothing is open", || {
        let pools = pools();
        let mut occupancies = pools.iter().map(|pool| pool.occupancy());
        occupancies.all(|one| one.waiting == 0 && one.open == 0)
    })
    .await;
}

/// Everything has started once each service has been asked.
async fn begins(scene: &Scene) {
    for service in 0..SERVICES.len() {
        assert_eq!(ask(scene, 0, service, 0).await.status(), 200);
    }
    at_rest(scene).await;
}

async fn closes(before: usize) {
    let until = Instant::now() + support::DEADLINE;
    while descriptors() > before + DESCRIPTORS {
        assert!(
            Instant::now() < until,
            "{before} were open, now {:#?}",
            open()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn serves_all(scene: &Scene) {
    for tenant in 0..TENANTS {
        for (service, name) in SERVICES.iter().enumerate() {
            let answer = ask(scene, tenant, service, 0).await;
            assert_eq!(
                answer.status(),
                200,
                "tenant {tenant} at {name}: {answer:?}"
            );
            let refused = ask(scene, tenant, service, 1).await;
            assert_eq!(refused.code(), "caller_unauthenticated");
        }
    }
}

/// A request with nothing odd about it.
async fn ask(scene: &Scene, tenant: usize, service: usize, caller: usize) -> Answered {
    let (tenant, service) = (scene.tenants[tenant], SERVICES[service]);
    let request = Request::get(format!("/{service}/x"))
        .header("x-finess", tenant.as_str())
        .header(witness::NONCE, "1")
        .header(witness::TENANT, tenant.as_str())
        .header(witness::SERVICE, service)
        .header(chaos::judge::BEGUN, scene.judge.now())
        .header(chaos::judge::CALLER, caller)
        .header("x-relais-token", token_of(CALLERS[caller].unwrap()))
        .body(Bytes::new())
        .unwrap();
    scene.gateway.send(request).await
}

/// The memory that this process has, in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes / 1024
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What is open: files, and sockets with their ports and states.
fn open() -> Vec<String> {
    let tcp = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let link = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let link = link.display().to_string();
        let inode = link
            .strip_prefix("socket:[")
            .unwrap_or("-")
            .trim_end_matches(']');
        let line = tcp
            .lines()
            .find(|line| line.split_whitespace().nth(9) == Some(inode));
        format!(
            "{link} {}",
            line.and_then(|line| line.get(..34)).unwrap_or_default()
        )
    };
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(name)
        .collect()
}
