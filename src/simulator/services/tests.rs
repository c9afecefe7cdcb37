mod rest;
mod soap;

use std::time::Duration;

use http::Request;

use super::*;
use crate::simulator::pki::shared;
use crate::simulator::pki::shared::request;

const OWN: &str = "060785003";
const SISTER: &str = "060785011";
const STRANGER: &str = "750712184";

/// A service that is asked without sockets, at a time that the test sets.
struct Desk {
    rules: Rules,
    register: Register,
    begun: Instant,
    after: Duration,
}

impl Desk {
    fn of(behaviour: Behaviour) -> Self {
        let mut register = Register::new();
        let own = OWN.parse().unwrap();
        register.legal_entities.insert(SISTER.parse().unwrap(), own);
        Self {
            rules: Rules::of(behaviour).unwrap(),
            register,
            begun: Instant::now(),
            after: Duration::ZERO,
        }
    }

    fn ask(&self, profile: Option<&Profile>, request: Request<Vec<u8>>) -> (u16, String) {
        let answer = self.answer(profile, request);
        let body = String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status().as_u16(), body)
    }

    fn answer(&self, profile: Option<&Profile>, request: Request<Vec<u8>>) -> Answer {
        let (head, body) = request.into_parts();
        let call = Call {
            profile,
            head: &head,
            body: &body,
            now: self.begun + self.after,
            time: 1_700_000_000 + self.after.as_secs() as i64,
        };
        self.rules.answer(&self.register, &call)
    }
}

fn profile(finess: &str, common_name: &str) -> Profile {
    let issued = shared::TEST.issue(&request(&format!("1{finess}"), common_name, 0));
    Profile::parse(&issued.cert_der).unwrap()
}

fn post(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    Request::post(path)
        .header("content-type", content_type)
        .body(body.into())
        .unwrap()
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request<Vec<u8>> {
    let request = (fields.iter()).fold(Request::get(path), |request, (name, value)| {
        request.header(*name, *value)
    });
    request.body(Vec::new()).unwrap()
}
