//! The books, for a person.

use std::fmt::{self, Display};

use super::{Account, Books, Discrepancy};
use crate::money::Amount;

/// The books as they are printed: by token, each account with its balance in dollars. With the outcome of the check.
pub struct Report<'a> {
    books: &'a Books,
    check: Option<&'a [Discrepancy]>,
}

impl<'a> Report<'a> {
    /// Of these books, with what a check of them found.
    pub fn new(books: &'a Books, check: Option<&'a [Discrepancy]>) -> Self {
        Report { books, check }
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { accounts, jobs, archived, events, .. } = self.books;
        writeln!(
            f,
            "{jobs} jobs with {events} events; {archived} of the jobs are archived. Without paid.archive, finished jobs are in \
             it as long as they are kept (paid.retention)."
        )?;
        let mut last = None;
        for ((token, account), sides) in accounts {
            if last != Some(token) {
                writeln!(f, "\n{}", token.shown())?;
                last = Some(token);
            }
            let (sign, sum) = match sides.debit >= sides.credit {
                true => ("", sides.debit - sides.credit),
                false => ("-", sides.credit - sides.debit),
            };
            let dollars = Amount::new(sum).to_decimal(token.decimals);
            writeln!(
                f,
                "  {:<14} {:>16}  {}",
                account.name(),
                format!("{sign}{dollars}"),
                meaning(*account)
            )?;
        }
        match self.check {
            None => Ok(()),
            Some([]) => writeln!(f, "\nthe books balance, and are what the jobs' records say"),
            Some(found) => {
                writeln!(f, "\n{} things are not as they must be:", found.len())?;
                found.iter().try_for_each(|discrepancy| writeln!(f, "  {discrepancy}"))
            }
        }
    }
}

fn meaning(account: Account) -> &'static str {
    match account {
        Account::Received => "paid by clients",
        Account::Wallet => "paid, or perhaps paid, by the wallet, less what came back",
        Account::Exposure => "signed to providers, or as refunds; whether it is gone is open",
        Account::Inventory => "stock bought ahead",
        Account::ProviderCost => "paid to providers for work that clients pay for",
        Account::Losses => "paid, or perhaps paid, for work that no client pays for",
        Account::Returned => "sent back by providers, found on the chain",
        Account::Income => "for work that is done",
        Account::Unearned => "for work that is not done yet",
        Account::RefundsDue => "for work that failed: to be paid back",
    }
}
