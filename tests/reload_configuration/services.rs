//! Services and ways in that come, change and go.

use super::*;

#[tokio::test]
async fn a_service_that_comes_is_served_one_that_goes_is_unknown_and_others_keep_their_connections()
{
    let mut section = String::new();
    let gateway = start_with(2, &[DMP, ROC], |text| {
        manual(text);
        section = cut(text, "roc");
    });
    works(&gateway, "dmp").await;
    let tenant = gateway.tenant(0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("service_unknown")
    );
    // Before the one that is there: its place is not what it is known by.
    edit(&gateway, |text| {
        let at = text.find("[services.dmp]").unwrap();
        text.insert_str(at, &section);
    });
    let report = reload(&gateway).await;
    assert!(report.changed && report.problems.is_empty(), "{report:?}");
    assert_eq!(report.configuration, ["services.roc"]);
    works(&gateway, "roc").await;
    works(&gateway, "dmp").await;
    assert_eq!((handshakes(&gateway, 0), handshakes(&gateway, 1)), (1, 1));

    edit(&gateway, |text| drop(cut(text, "roc")));
    assert_eq!(reload(&gateway).await.configuration, ["services.roc"]);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("service_unknown")
    );
    works(&gateway, "dmp").await;
    assert_eq!(handshakes(&gateway, 0), 1);
    let open = || {
        let pools = gateway.app.outbound.pools();
        pools
            .iter()
            .map(|pool| pool.occupancy().open)
            .sum::<usize>()
    };
    eventually("the connections of what is gone are closed", || open() == 1).await;
    assert!(!reload(&gateway).await.changed);
}

#[tokio::test]
async fn a_service_that_changes_gets_connections_of_its_own_and_others_keep_theirs() {
    let gateway = start(&[DMP, ROC]);
    works(&gateway, "dmp").await;
    works(&gateway, "roc").await;
    edit(&gateway, |text| with(text, "roc", "retry = \"never\""));
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["services.roc"]);
    assert_eq!((report.added.len(), report.removed.len()), (0, 0));
    for _ in 0..2 {
        works(&gateway, "dmp").await;
        works(&gateway, "roc").await;
    }
    assert_eq!((handshakes(&gateway, 0), handshakes(&gateway, 1)), (1, 2));
}

#[tokio::test]
async fn what_a_service_is_told_on_each_request_is_what_the_file_says_now() {
    let (gateway, upstream) = support::in_front_of(
        &Tls::default(),
        "headers = { x-key = \"first\" }",
        |mut connection: Connection, _| async move { connection.keep_answering("ok").await },
    );
    support::is_answered(&gateway).await;
    edit(&gateway, |text| {
        *text = text.replace("\"first\"", "\"second\"")
    });
    reload(&gateway).await;
    support::is_answered(&gateway).await;
    let heads = upstream.heads();
    assert!(heads[0].contains("x-key: first"), "{heads:?}");
    assert!(heads[1].contains("x-key: second"), "{heads:?}");
}

#[tokio::test]
async fn a_request_in_flight_on_a_service_that_changes_finishes() {
    let released = Arc::new(Semaphore::new(0));
    let (gateway, upstream) = start_on(1, &[DMP], |site, text| {
        manual(text);
        let released = Arc::clone(&released);
        let upstream =
            Upstream::start(&site.pki, &Tls::default(), move |mut connection, number| {
                let released = Arc::clone(&released);
                async move {
                    if number == 0 {
                        connection.head().await;
                        released.acquire().await.unwrap().forget();
                        connection.answer("before").await;
                    }
                    connection.keep_answering("after").await;
                }
            });
        text.push_str(&upstream.service("up", ""));
        upstream
    });
    let text = |answer: support::Answered| String::from_utf8(answer.0.body().to_vec()).unwrap();
    let (first, ()) = tokio::join!(gateway.get(gateway.tenant(0), "/up/x"), async {
        eventually("it is in flight", || upstream.heads().len() == 1).await;
        edit(&gateway, |text| with(text, "up", "http = \"h1\""));
        assert_eq!(reload(&gateway).await.configuration, ["services.up"]);
        let second = gateway.get(gateway.tenant(0), "/up/x").await;
        assert_eq!(text(second), "after");
        edit(&gateway, |text| drop(cut(text, "up")));
        reload(&gateway).await;
        released.add_permits(1);
    });
    assert_eq!(text(first), "before");
}

#[tokio::test]
async fn what_the_file_says_of_an_address_holds_for_the_requests_that_arrive_there() {
    let gateway = start(&[DMP, ROC]);
    let tenant = gateway.tenant(1);
    let bare = || Request::get("/x").body(Bytes::new()).unwrap();
    assert_eq!(gateway.send(bare()).await.code(), "service_unknown");
    let mut open = gateway.connect().await;
    edit(&gateway, |text| {
        let address = "address = \"127.0.0.1:0\"\n";
        let keys = format!(
            "{address}tenant = \"{tenant}\"\nservice = \"roc\"\nallowed_hosts = [\"gateway.internal\"]\n"
        );
        *text = text.replacen(address, &keys, 1);
    });
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["listeners"]);
    assert!(report.restart.is_empty(), "{report:?}");
    let hosted = Request::get("/x").header("host", "gateway.internal");
    for request in [bare(), hosted.body(Bytes::new()).unwrap()] {
        let answer = open.send(request).await;
        assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
    }
}

#[tokio::test]
async fn reloads_that_come_at_once_are_made_one_after_the_other() {
    let gateway = Arc::new(start(&[DMP, ROC]));
    edit(&gateway, |text| drop(cut(text, "roc")));
    let mut reloads = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let gateway = Arc::clone(&gateway);
        reloads.spawn(async move { reload(&gateway).await });
    }
    let mut changed = 0;
    while let Some(report) = reloads.join_next().await {
        changed += usize::from(report.unwrap().changed);
    }
    assert_eq!(changed, 1);
    works(&gateway, "dmp").await;
}

#[tokio::test]
async fn configurations_that_flip_under_load_fail_no_request() {
    let gateway = Arc::new(start(&[DMP, ROC]));
    fs::copy(
        gateway.path().join(TRUST),
        gateway.path().join("trust/copy.pem"),
    )
    .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (gateway, done) = (Arc::clone(&gateway), Arc::clone(&done));
        clients.spawn(async move {
            let tenant = gateway.tenant(number % 2);
            let path = ["/dmp/x", "/roc/x"][number / 4];
            let mut client = gateway.connect().await;
            let mut answered = 0;
            while !done.load(Ordering::Acquire) {
                let request = Request::get(path).header("x-finess", tenant.as_str());
                let answer = client.send(request.body(Bytes::new()).unwrap()).await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                assert_eq!(answer.seen().ou, Some(format!("1{tenant}")));
                answered += 1;
            }
            answered
        });
    }
    let good = fs::read_to_string(&gateway.site.configuration).unwrap();
    let mut other = good.replace(TRUST, "trust/copy.pem");
    with(&mut other, "dmp", "retry = \"never\"");
    let mut third = good.clone();
    let section = cut(&mut third, "dmp");
    third.push_str(&format!("\n{section}http = \"h1\"\n"));
    for round in 0..40 {
        put(
            &gateway.site.configuration,
            [&other, &third, &good][round % 3],
        );
        let report = reload(&gateway).await;
        assert!(report.changed && report.problems.is_empty(), "{report:?}");
        // A configuration that is there for less time than a handshake takes serves nobody.
        for service in ["dmp", "roc"] {
            let outcome = outcome(&gateway, gateway.tenant(0), service).await;
            assert!(outcome.is_ok(), "{outcome:?}");
        }
    }
    done.store(true, Ordering::Release);
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.unwrap();
    }
    assert!(
        answered > 100,
        "{answered} requests were answered meanwhile"
    );
}

#[tokio::test]
async fn a_request_that_waits_while_its_service_moves_takes_no_secret_of_the_former_place_along() {
    let released = Arc::new(Semaphore::new(0));
    let (gateway, (first, second)) = start_on(1, &[DMP], |site, text| {
        manual(text);
        let tls = Tls::default();
        let waits = Arc::clone(&released);
        let first = Upstream::start(&site.pki, &tls, move |mut connection, _| {
            let waits = Arc::clone(&waits);
            async move {
                connection.head().await;
                waits.acquire().await.unwrap().forget();
                connection.answer("first").await;
            }
        });
        let second = Upstream::start(&site.pki, &tls, |mut connection, _| async move {
            connection.keep_answering("second").await;
        });
        let keys = "pool = { max_connections = 1 }\nheaders = { x-key = \"secret\" }";
        text.push_str(&first.service("up", keys));
        (first, second)
    });
    let text = |answer: support::Answered| String::from_utf8(answer.0.body().to_vec()).unwrap();
    let tenant = gateway.tenant(0);
    let moved = async {
        eventually("one is in flight", || first.heads().len() == 1).await;
        let waiting = gateway.get(tenant, "/up/waits");
        let moving = async {
            let waits = || support::waiting_for_a_connection(&gateway) == 1;
            eventually("another waits", waits).await;
            edit(&gateway, |text| {
                drop(cut(text, "up"));
                text.push_str(&second.service("up", ""));
            });
            reload(&gateway).await;
        };
        let (answer, ()) = tokio::join!(waiting, moving);
        released.add_permits(1);
        text(answer)
    };
    let (answer, moved) = tokio::join!(gateway.get(tenant, "/up/x"), moved);
    assert_eq!((text(answer).as_str(), moved.as_str()), ("first", "second"));
    assert!(first.heads()[0].contains("x-key: secret"));
    assert!(!second.heads()[0].contains("x-key"), "{:?}", second.heads());
}
