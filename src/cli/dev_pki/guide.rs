//! What `kms dev-pki` says when it is done: what was made, and the commands that
//! come next.

use std::io::{self, Write};
use std::path::Path;

use super::{APPROVERS, DevPki, PLATFORM, quoted};
use crate::domain::ids::ModuleId;

/// Prints it.
pub(super) fn print(wanted: &DevPki, folder: &Path, out: &mut impl Write) -> io::Result<()> {
    let DevPki {
        days, server_name, ..
    } = wanted;
    let [alice, bob] = APPROVERS;
    let (platform, module) = PLATFORM;
    writeln!(
        out,
        "FOR TRYING OUT ONLY: the key of this authority lies in a file, and whoever has it is\n\
         every tenant and every module.\n\n\
         Made in {}, valid for {days} days:\n  \
         ca.pem, ca.key, ca.crl          the authority, and its empty revocation list\n  \
         server.pem, server.key          the service, for {server_name}, 127.0.0.1 and ::1\n  \
         client-MODULE.pem and .key      a client a module, of the tenant {}\n  \
         client-{platform}-{module}.pem and .key  the platform, which owns shared trust anchors\n  \
         approver-{alice}.pem, approver-{bob}.pem, approvers.jwks   two approvers and their key set\n  \
         m21.pem, m21.jwks               the key that signs M21's tokens, and its key set\n  \
         kek                             the key-encryption key\n  \
         kms.env                         the settings of production mode with these files\n",
        folder.display(),
        wanted.tenant.as_str(),
    )?;
    print_commands(wanted, folder, out)?;
    out.flush()
}

/// For a shell, as they stand.
fn print_commands(wanted: &DevPki, folder: &Path, out: &mut impl Write) -> io::Result<()> {
    let at = |name: &str| quoted(folder.join(name).as_os_str());
    let (tenant, environment, plane) = (
        wanted.tenant.as_str(),
        wanted.environment.as_str(),
        wanted.plane.as_str(),
    );
    let first = wanted.modules.first().map_or("M21", ModuleId::as_str);
    let curl = format!(
        "curl --cacert {} --cert {} --key {}",
        at("ca.pem"),
        at(&format!("client-{first}.pem")),
        at(&format!("client-{first}.key")),
    );
    let keys = format!("https://{}:8002/kms/v1/keys", wanted.server_name);
    let approver = APPROVERS[0];
    writeln!(
        out,
        "Start the service:\n  (. {} && kms serve)\n\
         Make a key, which {approver} approves:\n  \
         APPROVAL=$(kms approve --signing-key {} --approver {approver} \\\n    \
         --operation key_generate --tenant {tenant} --environment {environment} --plane {plane} \\\n    \
         --key-type Ed25519 --key-usage sign,verify)\n  \
         {curl} \\\n    \
         {keys} -H 'Content-Type: application/json' -H \"X-Approval-Token: $APPROVAL\" \\\n    \
         -d '{{\"tenant_id\":\"{tenant}\",\"environment\":\"{environment}\",\"plane\":\"{plane}\",\
         \"key_type\":\"Ed25519\",\"key_usage\":[\"sign\",\"verify\"]}}'\n\
         See it:\n  \
         {curl} \\\n    \
         '{keys}?tenant_id={tenant}&environment={environment}&plane={plane}'",
        at("kms.env"),
        at(&format!("approver-{approver}.pem")),
    )
}
