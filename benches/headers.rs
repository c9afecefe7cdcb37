//! What is taken out of heads and put into them, on the way to the service and back.

use criterion::{BatchSize, BenchmarkId, Criterion};
use http::{HeaderMap, HeaderName, HeaderValue};
use relais::gateway::headers;

/// Fields of a head.
type Fields = [(&'static str, &'static str)];

/// What is done to a head.
type Rewriting = fn(&mut HeaderMap);

/// A request of a care application to DMP.
const SOAP: [(&str, &str); 7] = [
    ("host", "127.0.0.1:8080"),
    ("x-finess", "0B0000019"),
    (
        "content-type",
        "application/soap+xml; charset=utf-8; action=\"urn:ihe:iti:2007:RegistryStoredQuery\"",
    ),
    ("content-length", "4096"),
    ("accept", "application/soap+xml, multipart/related"),
    ("user-agent", "Apache-CXF/4.0.4"),
    ("connection", "keep-alive"),
];

/// A request of a browser, by way of an application that passes on what it was given.
const LONG: [(&str, &str); 24] = [
    ("host", "127.0.0.1:8080"),
    ("x-finess", "0B0000019"),
    ("connection", "keep-alive, x-request-hint"),
    ("x-request-hint", "1"),
    ("cache-control", "max-age=0"),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"150\", \"Not A(Brand\";v=\"24\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-user", "?1"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://logiciel.example/dossiers"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "fr-FR,fr;q=0.9,en;q=0.8"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("cookie", "theme=clair"),
    ("te", "trailers"),
    ("x-forwarded-for", "192.0.2.7"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    (
        "authorization",
        "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmF0dXJl",
    ),
];

/// An answer of a service.
const ANSWER: [(&str, &str); 8] = [
    ("date", "Sat, 21 Nov 2026 08:00:00 GMT"),
    ("server", "Apache"),
    ("content-type", "application/soap+xml; charset=utf-8"),
    ("content-length", "8192"),
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5, max=100"),
    ("strict-transport-security", "max-age=31536000"),
    ("set-cookie", "JSESSIONID=0123456789abcdef; Path=/; Secure"),
];

fn head(fields: &Fields) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in fields {
        head.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    head
}

pub(crate) fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let for_service = |head: &mut HeaderMap| {
        headers::for_service(head, headers::Overview::of(head));
    };
    let for_application = |head: &mut HeaderMap| headers::for_application(head, false);
    let ways: [(_, &Fields, Rewriting); 3] = [
        ("of a SOAP request", &SOAP, for_service),
        ("of a browser's request", &LONG, for_service),
        ("of an answer", &ANSWER, for_application),
    ];
    for (whose, fields, rewrite) in ways {
        let arrived = head(fields);
        group.bench_function(BenchmarkId::from_parameter(whose), |bencher| {
            bencher.iter_batched_ref(|| arrived.clone(), rewrite, BatchSize::SmallInput);
        });
    }
    group.finish();
}
