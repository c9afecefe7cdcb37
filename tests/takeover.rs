//! One process after the other on the same addresses: nobody who connects meanwhile notices.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use rustix::process::Signal;
use support::process::{Gateway, Place, connect, exchange, until};
use support::{H2c, whole};

/// How often one gateway takes over from another under load.
const TAKEOVERS: usize = 20;

/// Applications that send requests until the test is over, and never a second time what has failed.
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    running: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Runs an application, which makes one round of requests at a time.
    fn add(&mut self, mut round: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (is_over, answered) = (Arc::clone(&self.is_over), Arc::clone(&self.answered));
        self.running.push(thread::spawn(move || {
            let mut failures = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                match round() {
                    Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Err(failure) => failures.push(failure),
                }
            }
            failures
        }));
    }

    fn on(place: &Place) -> Self {
        let mut load = Self {
            is_over: Arc::default(),
            answered: Arc::default(),
            running: Vec::new(),
        };
        let address = place.address;
        for _ in 0..4 {
            let request = place.request();
            load.add(move || exchange(&mut connect(address)?, &request).map(drop));
        }
        for _ in 0..4 {
            let (request, mut kept) = (place.request(), None);
            load.add(move || {
                let mut stream = kept.take().map_or_else(|| connect(address), Ok)?;
                kept = exchange(&mut stream, &request)?.then_some(stream);
                Ok(())
            });
        }
        load.add_h2c(place);
        let (request, path) = (place.request(), place.socket.clone());
        load.add(move || {
            let mut stream =
                UnixStream::connect(&path).map_err(|error| format!("connect: {error}"))?;
            exchange(&mut stream, &request).map(drop)
        });
        load
    }

    /// An application that opens a new connection when the last one says that it takes no further request.
    fn add_h2c(&mut self, place: &Place) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (address, tenant) = (place.address, place.site.tenants[0]);
        let mut kept = None;
        self.add(move || {
            let request = || {
                let request = http::Request::get("/dmp/x").header("x-finess", tenant.as_str());
                request.body(whole(Bytes::new())).unwrap()
            };
            runtime.block_on(async {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => H2c::connect(address).await,
                };
                if client.sender.ready().await.is_err() {
                    client = H2c::connect(address).await;
                }
                let mut answer = client.begin(request()).await;
                // It learned in the moment of sending that the connection takes no further request, and sent nothing.
                if answer.as_ref().is_err_and(hyper::Error::is_canceled) {
                    client = H2c::connect(address).await;
                    answer = client.begin(request()).await;
                }
                let answer = answer.map_err(|error| format!("h2c: {error:?}"))?;
                assert_eq!(answer.status(), 200);
                kept = Some(client);
                Ok(())
            })
        });
    }

    /// Waits until as many more requests have been answered.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until("requests are answered", || {
            self.answered.load(Ordering::Relaxed) > before + 50
        });
    }

    /// What has failed.
    fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.running.into_iter();
        ended.flat_map(|one| one.join().unwrap()).collect()
    }
}

#[test]
fn a_takeover_fails_no_request_under_load() {
    let place = Place::new();
    let mut gateway = place.start("first");
    let load = Load::on(&place);
    let mut gone = Vec::new();
    for turn in 0..TAKEOVERS {
        load.goes_on();
        let name = format!("successor-{turn}");
        let mut successor = place.serve(&name, &["--takeover", &gateway.id()]);
        // More, fewer and as many workers as before.
        successor.env("RELAIS__WORKERS", (1 + turn % 3).to_string());
        let successor = Gateway(successor.spawn().unwrap());
        place.wait_for(&name, "was asked to stop");
        gone.push(std::mem::replace(&mut gateway, successor));
        gateway.can_be_taken_over();
    }
    for old in &mut gone {
        assert_eq!(old.ended(), Some(0));
    }
    load.goes_on();
    let answered = load.answered.load(Ordering::Relaxed);
    let failures = load.end();
    assert!(failures.is_empty(), "of {answered}: {failures:?}");
    eprintln!("{answered} requests over {TAKEOVERS} takeovers");

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended(), Some(0));
    assert!(!place.socket.exists(), "the last one tidies up");
    assert!(connect(place.address).is_err());
}

#[test]
fn a_successor_that_cannot_start_leaves_the_gateway_as_it_was() {
    let place = Place::new();
    let mut gateway = place.start("first");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut successor = place.serve("second", &["--takeover", &gateway.id()]);
    let address = taken.local_addr().unwrap().to_string();
    successor.env("RELAIS__ADMIN__ADDRESS", &address);
    assert_eq!(successor.status().unwrap().code(), Some(1));
    let said = fs::read_to_string(place.log("second")).unwrap();
    assert!(said.contains(&address), "{said}");
    place.wait_for("first", "nobody took over");
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    assert!(place.socket.exists());

    // It can still be taken over.
    let _second = place
        .serve("third", &["--takeover", &gateway.id()])
        .spawn()
        .map(Gateway)
        .unwrap();
    assert_eq!(gateway.ended(), Some(0));
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
}

#[test]
fn a_takeover_from_nobody_is_refused_by_name() {
    let place = Place::new();
    let own = std::process::id().to_string();
    let status = place
        .serve("alone", &["--takeover", &own])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let said = fs::read_to_string(place.log("alone")).unwrap();
    assert!(said.contains(&format!("process id {own}")), "{said}");
}
