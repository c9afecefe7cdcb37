//! `relais token`: a token for a program, and the line of the configuration that recognises it.

use std::process::ExitCode;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::print;
use crate::gateway::caller::{TokenHash, new_token};

/// Makes a token and prints it with its hash.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let token = new_token()
        .ok()
        .context("the system has no random numbers")?;
    let hash = TokenHash::of(token.as_bytes());
    print(&Zeroizing::new(format!(
        "\
token: {}
       It is shown this once: put it where the program reads its secrets. The program sends it as
       Proxy-Authorization: Bearer TOKEN, as X-Relais-Token: TOKEN, or in http_proxy=http://FINESS:TOKEN@HOST:PORT

tokens = [\"{hash}\"]
       This goes into the program's [[callers]]; it tells nothing of the token.
",
        *token
    )));
    Ok(ExitCode::SUCCESS)
}
