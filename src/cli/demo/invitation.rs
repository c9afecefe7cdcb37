//! What the demonstration prints when it stays: where everything is, and commands to try.

use std::fmt::Write as _;
use std::fs;

use super::data_address;
use super::odd::Odd;
use crate::app::Bound;
use crate::simulator::requests;
use crate::simulator::services::SOFTWARE_NUMBER;
use crate::simulator::site::Site;

/// Writes the example files that the commands need, and gives the text.
pub(super) fn text(site: &Site, odd: &Odd, bound: &Bound) -> anyhow::Result<String> {
    let gateway = data_address(bound)?;
    let admin = bound
        .admin_address()
        .map(|address| address.to_string())
        .unwrap_or_default();
    let tenant = site.tenants[0];
    let dmp = site.directory.join("dmp.xml");
    fs::write(&dmp, requests::dmp_message(tenant))?;
    let insi = site.directory.join("insi.xml");
    fs::write(&insi, requests::insi_message(tenant, SOFTWARE_NUMBER))?;
    let (dmp, insi) = (dmp.display(), insi.display());
    let soap = "-H 'Content-Type: application/soap+xml'";
    let mut text = format!(
        "Relais demonstration: {} structures, {} simulated services\n\
         \n  gateway         http://{gateway}\n  administration  http://{admin}\n  everything in   {}\n",
        site.tenants.len(),
        site.simulators.len(),
        site.directory.display()
    );
    let to_dmp = format!("{soap} --data-binary @{dmp} http://{gateway}/dmp/v2/services/repository");
    let client_id = requests::client_id(tenant);
    let served = [
        format!("curl -H 'X-Finess: {tenant}' {to_dmp}"),
        format!("curl {soap} --data-binary @{insi} http://{gateway}/@{tenant}/insi-auto/lps"),
        format!(
            "curl -d grant_type=client_credentials -d client_id={client_id} \
             http://{gateway}/@{tenant}/psc/protocol/openid-connect/token"
        ),
        format!("curl http://{gateway}/@{tenant}/roc/x   # answers with what it saw"),
        format!("curl http://{gateway}/annuaire/Practitioner   # Relais puts the API key on it"),
        format!(
            "curl http://{gateway}/@{}/-/identity/dmp   # a site: under its legal entity's certificate",
            site.establishment
        ),
        format!("curl http://{admin}/api/v1/tenants"),
        format!("curl http://{admin}/metrics"),
    ];
    let refused = [
        format!(
            "curl -H 'X-Finess: {}' {to_dmp}   # no such tenant",
            odd.unknown
        ),
        format!(
            "curl -H 'X-Finess: {}' {to_dmp}   # its certificate has expired",
            odd.expired
        ),
        format!(
            "curl -H 'X-Finess: {}' {to_dmp}   # DMP itself: the message is of another structure",
            odd.newcomer
        ),
        format!(
            "curl {soap} --data-binary @{insi} http://{gateway}/@{tenant}/insi-faux/lps   # INSi itself: desir_560"
        ),
        format!("curl http://{gateway}/annuaire-nu/Practitioner   # Annuaire itself: no API key"),
    ];
    for (title, commands) in [("Try:", &served[..]), ("Refused:", &refused)] {
        write!(text, "\n{title}\n")?;
        for command in commands {
            writeln!(text, "  {command}")?;
        }
    }
    text.push_str("\nCtrl-C stops it.\n");
    Ok(text)
}
