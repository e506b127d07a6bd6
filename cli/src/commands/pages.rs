//! Lists that come in pages.

use super::LIST_PAGE;
use crate::client::ClientError;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use millpool_proto::v1::Page;

/// How much of a list is wanted.
#[derive(Args, Clone, Copy, Debug)]
pub struct LimitArgs {
    /// Most rows to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}

/// All pages up to a limit: the items, and the token of what is left, empty at the end.
pub async fn gather<T>(
    limit: LimitArgs,
    mut fetch: impl AsyncFnMut(Page) -> Result<(Vec<T>, String), ClientError>,
) -> Result<(Vec<T>, String), Failure> {
    let most = if limit.limit == 0 { usize::MAX } else { limit.limit };
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let size = (most - items.len()).min(LIST_PAGE as usize) as u32;
        let (page, next) = fetch(Page { size, token }).await?;
        items.extend(page);
        if next.is_empty() || items.len() >= most {
            return Ok((items, next));
        }
        token = next;
    }
}

/// Says where a list goes on.
pub fn notice_rest(shown: usize, rest: &str, output: &mut Output) -> Result<(), Failure> {
    if rest.is_empty() {
        return Ok(());
    }
    Ok(output.notice(format!("The first {shown}; --limit 0 shows all."))?)
}
