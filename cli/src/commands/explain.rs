//! `millpool explain`: why a booking is where it is, or why an order finds no place, and what would help.

use super::quote::obstacles;
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::order::OrderArgs;
use crate::output::Sheet;
use crate::shown;
use clap::Args;
use millpool_proto::v1::{ExplainRequest, ExplainResponse};

/// Says why a booking is where it is, or why an order finds no better place, and what would help.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millpool explain b000042
  millpool explain --order bracket.toml --due tomorrow")]
pub struct ExplainArgs {
    /// The booking, e.g. b000042; or describe an order
    booking: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

/// Runs it.
pub async fn run(args: &ExplainArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = match (&args.booking, args.order.is_given()) {
        (Some(_), true) => {
            return Err(Failure::Usage("name a booking or describe an order, not both".into()));
        }
        (Some(booking_id), false) => ExplainRequest { booking_id: booking_id.clone(), order: None },
        (None, _) => {
            let order = args.order.read(&desk.output.clock)?;
            ExplainRequest { booking_id: String::new(), order: Some(order) }
        }
    };
    let answer = desk.client()?.explain(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("ExplainResponse", &answer)?)?);
    }
    print(&answer, desk)
}

fn print(answer: &ExplainResponse, desk: &mut Desk) -> Result<(), Failure> {
    let output = &mut desk.output;
    for reason in &answer.reasons {
        output.line(format!("- {reason}"))?;
    }
    obstacles(&answer.obstacles, output)?;
    if answer.relaxations.is_empty() {
        return Ok(());
    }
    output.line("\nWhat would help")?;
    let mut sheet = Sheet::new(&["WITHOUT", "DONE", ">PRICE"]);
    for relaxation in &answer.relaxations {
        sheet.row([
            relaxation.what.clone(),
            shown::time(relaxation.completes_at_s, &output.clock),
            shown::money(relaxation.price_fen),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}
