//! Whatever is sent to it, the service says no, hangs up, and serves the next.

mod attacks;
mod frames;
mod http1;
mod http2;
mod load;

use crate::support::TestKms;

async fn assert_alive(kms: &TestKms) {
    kms.get("/kms/v1/config").await.ok();
}
