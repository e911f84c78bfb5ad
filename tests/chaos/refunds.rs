//! What a run leaves owed to clients is paid back as an operator pays it: by `galaksio refunds pay`, which is killed in the
//! middle and run again.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use galaksio::money::Amount;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};

use super::audit::Books;
use super::gateway::{PATIENCE, WALLET_KEY};
use super::plan::Dice;
use super::site::Site;

/// How long the payer may take over each: it writes three times, to a store that waits for its disk.
const EACH: Duration = Duration::from_millis(200);

/// Longer than any test: a call stalled by this never goes on.
const FOREVER: Duration = Duration::from_secs(3600);

impl Site {
    /// Pays all that is owed by these books. The gateways have ended, and nobody has the store open.
    pub(crate) async fn pay_back(&self, seed: u64, books: &Books) {
        let owed = books.ended.get("refund_due").copied().unwrap_or(0);
        let moved = self.sandbox.ledger.transfers().len();
        let (said, well) = self.said(&["refunds", "pay", "--dry-run"]).await;
        let lines = |start: &str| said.lines().filter(|line| line.starts_with(start)).count();
        assert!(well && lines("pay ") == owed && lines("leave ") == 0, "{owed} are owed:\n{said}");
        let total =
            format!("total {} ", Amount::new(books.refunds_due).to_decimal(self.client.asset.decimals));
        assert!(owed == 0 || lines(&total) == 1, "{total} is owed:\n{said}");
        assert_eq!(self.sandbox.ledger.transfers().len(), moved, "only said, and paid");
        if owed > 0 {
            self.killed_while_paying(&mut Dice::new(!seed), owed).await;
        }
        let began = Instant::now();
        // On a store for many, two at once, which get in each other's way.
        let paying: Vec<_> = (0..self.replicas()).map(|_| self.said(&["refunds", "pay", "--yes"])).collect();
        let said = futures_util::future::join_all(paying).await;
        let (last, well) = self.said(&["refunds", "pay", "--yes"]).await;
        assert!(well, "not all is paid: {last}\nand before: {said:#?}");
        let (list, well) = self.said(&["refunds", "list"]).await;
        assert!(well && list.contains("nothing is owed"), "{list}");
        println!("{owed} refunds were paid within {:.1?}", began.elapsed());
    }

    /// SIGKILL for the command, at one of its calls of the facilitator: with the refund paid, or not.
    async fn killed_while_paying(&self, dice: &mut Dice, owed: usize) {
        let (before, paid) = (dice.below(owed), dice.below(2) == 0);
        println!("the payer of {owed} refunds is killed after {before}; the next is paid: {paid}");
        let faults = &self.sandbox.faults;
        let struck = faults.fired(Service::Facilitator) + before as u64 + 1;
        if before > 0 {
            let passed = Rule::next(u32::try_from(before).unwrap(), Fault::Slow(Duration::ZERO));
            faults.add(Service::Facilitator, passed.at("/settle"));
        }
        let stalled = Rule::next(1, Fault::Slow(FOREVER)).at("/settle");
        faults.add(Service::Facilitator, if paid { stalled.after() } else { stalled });
        let moved = self.sandbox.ledger.transfers().len() + before + usize::from(paid);
        // It says what it pays, and nobody would read that: a pipe that is full stops it.
        let mut payer = self.galaksio(&["refunds", "pay", "--yes"], Stdio::null);
        let give_up = Instant::now() + PATIENCE + EACH * u32::try_from(before).unwrap();
        let is_there = || {
            let paid = self.sandbox.ledger.transfers().len() == moved;
            paid && faults.fired(Service::Facilitator) == struck
        };
        while !is_there() {
            assert!(Instant::now() < give_up, "the payer never came so far");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        payer.kill().unwrap();
        payer.wait().unwrap();
        faults.clear(Service::Facilitator);
    }

    /// `galaksio` with these arguments: what it says, and whether it ended well.
    async fn said(&self, arguments: &[&str]) -> (String, bool) {
        let process = self.galaksio(arguments, Stdio::piped);
        let ended = tokio::task::spawn_blocking(move || process.wait_with_output().unwrap()).await.unwrap();
        let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).unwrap());
        (said.concat(), ended.status.success())
    }

    fn galaksio(&self, arguments: &[&str], output: fn() -> Stdio) -> Child {
        Command::new(env!("CARGO_BIN_EXE_galaksio"))
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .env_clear()
            .env("GALAKSIO_WALLET_KEY", WALLET_KEY)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap()
    }
}
