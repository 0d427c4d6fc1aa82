//! Commands to the servers that have their keys: split, sent to all at once, collected, and sent again where a server is gone,
//! has forgotten the scripts, or knows that another one is in charge.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use redis::{Cmd, Value, cmd};

use crate::address::Address;
use crate::command::Command;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::node::{Node, Restarted};
use crate::settings::{ClusterMode, Config};
use crate::topology::{Redirect, Topology};

/// How often a command is sent again at the most. Redirects come one after the other only while slots move.
const MAX_ROUNDS: u32 = 6;

/// The most bytes of values that a batch is answered with: what is more would not fit into the memory of a small instance. The
/// host asks again for half as many.
const MAX_ANSWER_BYTES: usize = 24 * 1024 * 1024;

const CONFIGURED: &str = "is in the setting \"address\"";
const DISCOVERED: &str = "is a node of the cluster";

/// The servers, and who is in charge of what.
pub(crate) struct Router {
    pub(crate) config: Rc<Config>,
    nodes: BTreeMap<Address, Node>,
    topology: Option<Topology>,
    /// Something happened that the topology doesn't explain.
    is_stale: bool,
    /// Which server may have gone back to what it had saved, until the host was told.
    restarted: Restarted,
}

/// A command under way: its number, and where to if not to whoever is in charge.
#[derive(Debug, Clone)]
struct Job {
    number: usize,
    redirect: Option<Redirect>,
}

impl Job {
    fn is_asking(&self) -> bool {
        self.redirect.as_ref().is_some_and(|redirect| redirect.is_ask)
    }
}

/// What one round of sending and collecting leaves.
#[derive(Default)]
struct Round {
    again: Vec<Job>,
    failure: Option<Failure>,
    /// Servers that had closed a connection of an earlier call, or forgotten the scripts. That happens to each once at the most.
    renewed: Vec<Address>,
    /// Commands that could not be sent or were left unanswered, and by whom.
    unreached: Vec<(Address, Failure, Vec<Job>)>,
    /// What the values received so far come to.
    value_bytes: usize,
}

impl Router {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config: Rc::new(config),
            nodes: BTreeMap::new(),
            topology: None,
            is_stale: false,
            restarted: Restarted::default(),
        }
    }

    /// One answer per command, in their order.
    ///
    /// # Errors
    /// The first failure of any of them that could not be mended. Others may have been carried out.
    pub(crate) fn execute(&mut self, commands: &[Command<'_>], deadline: Deadline) -> Result<Vec<Value>, Failure> {
        let mut answers: Vec<Option<Value>> = Vec::with_capacity(commands.len());
        answers.resize_with(commands.len(), || None);
        let mut jobs: Vec<Job> = (0..commands.len()).map(|number| Job { number, redirect: None }).collect();
        let mut round = Round::default();
        for _ in 0..MAX_ROUNDS {
            if jobs.is_empty() {
                break;
            }
            self.run(std::mem::take(&mut jobs), commands, &mut answers, &mut round, deadline)?;
            if let Some(failure) = round.failure.take() {
                return Err(failure);
            }
            jobs = std::mem::take(&mut round.again);
            if !round.unreached.is_empty() {
                jobs.extend(self.reroute(std::mem::take(&mut round.unreached), commands, deadline)?);
            }
            // Writes to one key have to stay in their order.
            jobs.sort_unstable_by_key(|job| job.number);
        }
        let answered: Option<Vec<Value>> = answers.into_iter().collect();
        answered.ok_or_else(|| {
            self.is_stale = true;
            let address = self.config.addresses.first().cloned();
            let address = address.unwrap_or_else(|| Address { host: "".into(), port: 0 });
            Failure::Unreachable { address, reason: "the slots of the cluster are moving about".into() }
        })
    }

    /// The server that was restarted since this was last asked, if one was.
    pub(crate) fn take_restarted(&self) -> Option<Address> {
        self.restarted.take()
    }

    /// The answers of one server to plain commands.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn ask(
        &mut self,
        address: &Address,
        commands: &[Cmd],
        deadline: Deadline,
    ) -> Result<Vec<Value>, Failure> {
        let was_linked = self.node(address).is_linked();
        let mut asked = self.ask_once(address, commands, deadline);
        if was_linked && asked.as_ref().is_err_and(Failure::is_lost) {
            asked = self.ask_once(address, commands, deadline);
        }
        asked.inspect_err(|failure| self.is_stale |= failure.asks_for_topology())
    }

    fn ask_once(&mut self, address: &Address, commands: &[Cmd], deadline: Deadline) -> Result<Vec<Value>, Failure> {
        let config = Rc::clone(&self.config);
        let node = self.node(address);
        let mut ask = || {
            let link = node.link(&config, deadline)?;
            for command in commands {
                link.connection.push_command(command);
            }
            link.connection.flush()?;
            let mut failure = None;
            let mut answers = Vec::with_capacity(commands.len());
            for _ in commands {
                match link.connection.receive()? {
                    Value::ServerError(error) => {
                        failure.get_or_insert(Failure::Server { address: address.clone(), error });
                    }
                    answer => answers.push(answer),
                }
            }
            failure.map_or(Ok(answers), Err)
        };
        let asked = ask();
        asked.inspect_err(|failure| self.node(address).note(failure))
    }

    /// Who is in charge of what, as far as is known without a doubt.
    ///
    /// # Errors
    /// If no server can be asked.
    pub(crate) fn topology(&mut self, deadline: Deadline) -> Result<&Topology, Failure> {
        if self.topology.is_none() || self.is_stale {
            self.refresh(deadline)?;
        }
        let lost = || Failure::Settings("the setting \"address\" is empty".into());
        self.topology.as_ref().ok_or_else(lost)
    }

    /// Connects to every server that has keys, and answers them in a fixed order, with a number that stays the same as long as
    /// none of them is started again and no slots move.
    ///
    /// # Errors
    /// If one of them can't be reached.
    pub(crate) fn masters(&mut self, deadline: Deadline) -> Result<(Vec<Address>, u64), Failure> {
        let config = Rc::clone(&self.config);
        let topology = self.topology(deadline)?;
        let mut hasher = DefaultHasher::new();
        topology.hash(&mut hasher);
        let masters = topology.masters();
        for address in &masters {
            let node = self.node(address);
            let linked = node.link(&config, deadline).map(drop);
            node.run_id().hash(&mut hasher);
            linked.inspect_err(|failure| self.is_stale |= failure.asks_for_topology())?;
        }
        Ok((masters, hasher.finish()))
    }

    /// Asks one server after the other, those that are connected first, until one says who is in charge of what.
    fn refresh(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let mut candidates: Vec<Address> = Vec::new();
        let linked = self.nodes.iter().filter(|(_, node)| node.is_linked()).map(|(address, _)| address);
        for address in linked.chain(self.nodes.keys()).chain(&self.config.addresses) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        let mut first_failure = None;
        for address in candidates {
            match self.discover(&address, deadline) {
                Ok(topology) => {
                    let masters = topology.masters();
                    self.nodes.retain(|address, _| masters.contains(address));
                    self.topology = Some(topology);
                    self.is_stale = false;
                    return Ok(());
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| Failure::Settings("the setting \"address\" is empty".into())))
    }

    fn discover(&mut self, address: &Address, deadline: Deadline) -> Result<Topology, Failure> {
        let config = Rc::clone(&self.config);
        let linked = self.node(address).link(&config, deadline).map(|link| link.is_cluster);
        let is_cluster = linked.inspect_err(|failure| self.node(address).note(failure))?;
        match (config.cluster, is_cluster) {
            (ClusterMode::Yes, false) => {
                Err(Failure::Settings(format!("{address} is no cluster, but the setting \"cluster\" is true")))
            }
            (ClusterMode::Auto, true) if config.database != 0 => {
                let database = config.database;
                Err(Failure::Settings(format!(
                    "the setting \"database\" is {database}, but a cluster has only database 0"
                )))
            }
            (ClusterMode::Auto, false) if config.addresses.len() > 1 => Err(Failure::Settings(format!(
                "the setting \"address\" lists several servers, but {address} is no cluster"
            ))),
            (ClusterMode::No, _) | (ClusterMode::Auto, false) => Ok(Topology::Single(address.clone())),
            (ClusterMode::Yes | ClusterMode::Auto, true) => {
                let slots = self.ask(address, std::slice::from_ref(cmd("CLUSTER").arg("SLOTS")), deadline)?;
                let topology = slots.first().and_then(|slots| Topology::read(slots, address));
                topology.filter(|topology| !topology.masters().is_empty()).ok_or_else(|| {
                    let reason = "its cluster has no slots that anybody is in charge of".into();
                    Failure::Unreachable { address: address.clone(), reason }
                })
            }
        }
    }

    fn node(&mut self, address: &Address) -> &mut Node {
        let because = if self.config.addresses.contains(address) { CONFIGURED } else { DISCOVERED };
        self.nodes
            .entry(address.clone())
            .or_insert_with(|| Node::new(address.clone(), because, Rc::clone(&self.restarted)))
    }

    fn run(
        &mut self,
        jobs: Vec<Job>,
        commands: &[Command<'_>],
        answers: &mut [Option<Value>],
        round: &mut Round,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let mut sent = Vec::new();
        for (address, jobs) in self.group(jobs, commands, deadline)? {
            let was_linked = self.node(&address).is_linked();
            match self.send(&address, &jobs, commands, deadline) {
                Ok(()) => sent.push((address, jobs, was_linked)),
                Err(failure) => self.settle(failure, address, jobs, was_linked, round),
            }
        }
        // Every reply has to be read, whatever became of the others: the next call finds the connection in order.
        for (address, jobs, was_linked) in sent {
            if let Err(failure) = self.collect(&address, &jobs, commands, answers, round) {
                let unanswered = |job: &Job| answers.get(job.number).is_some_and(Option::is_none);
                let redirected = |job: &Job| round.again.iter().any(|again| again.number == job.number);
                let left = jobs.into_iter().filter(|job| unanswered(job) && !redirected(job)).collect();
                self.settle(failure, address, left, was_linked, round);
            }
        }
        Ok(())
    }

    /// Each command to its server.
    fn group(
        &mut self,
        jobs: Vec<Job>,
        commands: &[Command<'_>],
        deadline: Deadline,
    ) -> Result<BTreeMap<Address, Vec<Job>>, Failure> {
        let config = Rc::clone(&self.config);
        let topology = self.topology(deadline)?;
        let mut groups: BTreeMap<Address, Vec<Job>> = BTreeMap::new();
        if let Topology::Single(address) = topology {
            groups.insert(address.clone(), jobs);
            return Ok(groups);
        }
        for job in jobs {
            let owner = match &job.redirect {
                Some(redirect) => Some(&redirect.to),
                None => commands.get(job.number).and_then(|command| topology.owner(&config.key_prefix, command.key())),
            };
            let Some(owner) = owner else {
                self.is_stale = true;
                let address = self.config.addresses.first().cloned();
                let address = address.unwrap_or_else(|| Address { host: "".into(), port: 0 });
                let reason = "no node of its cluster is in charge of some of the slots".into();
                return Err(Failure::Unreachable { address, reason });
            };
            match groups.get_mut(owner) {
                Some(group) => group.push(job),
                None => drop(groups.insert(owner.clone(), vec![job])),
            }
        }
        Ok(groups)
    }

    fn send(
        &mut self,
        address: &Address,
        jobs: &[Job],
        commands: &[Command<'_>],
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let config = Rc::clone(&self.config);
        let restarted = Rc::clone(&self.restarted);
        let link = self.node(address).link(&config, deadline)?;
        let mut asked_for = jobs.iter().filter_map(|job| commands.get(job.number));
        if let Some(address) = &*restarted.borrow()
            && asked_for.any(Command::overwrites)
        {
            return Err(Failure::Restarted { address: address.clone() });
        }
        for job in jobs {
            if let Some(command) = commands.get(job.number) {
                command.pack(link, &config.key_prefix, job.is_asking())?;
            }
        }
        link.connection.flush()
    }

    fn collect(
        &mut self,
        address: &Address,
        jobs: &[Job],
        commands: &[Command<'_>],
        answers: &mut [Option<Value>],
        round: &mut Round,
    ) -> Result<(), Failure> {
        let lost = || Failure::Lost { address: address.clone(), reason: "there is no connection".into() };
        let link = self.nodes.get_mut(address).and_then(Node::linked).ok_or_else(lost)?;
        let mut is_forgetful = false;
        for job in jobs {
            let (Some(command), Some(answer)) = (commands.get(job.number), answers.get_mut(job.number)) else {
                continue;
            };
            match command.receive(&mut link.connection, job.is_asking())? {
                Value::ServerError(error) => match Redirect::read(&error, address) {
                    Some(redirect) if self.topology.as_ref().is_some_and(Topology::is_cluster) => {
                        self.is_stale |= !redirect.is_ask;
                        round.again.push(Job { number: job.number, redirect: Some(redirect) });
                    }
                    _ if error.code() == "NOSCRIPT" && !round.renewed.contains(address) => {
                        is_forgetful = true;
                        round.again.push(job.clone());
                    }
                    _ => {
                        round.failure.get_or_insert(Failure::Server { address: address.clone(), error });
                    }
                },
                value => {
                    round.value_bytes += command.value_bytes(&value);
                    if round.value_bytes > MAX_ANSWER_BYTES && commands.len() > 1 {
                        return Err(Failure::TooLarge { limit_bytes: MAX_ANSWER_BYTES });
                    }
                    *answer = Some(value);
                }
            }
        }
        if is_forgetful {
            // A new connection brings the scripts with it.
            round.renewed.push(address.clone());
            self.node(address).unlink();
        }
        Ok(())
    }

    /// What follows from a failure for the commands that it leaves unanswered.
    fn settle(&mut self, failure: Failure, address: Address, jobs: Vec<Job>, was_linked: bool, round: &mut Round) {
        self.node(&address).note(&failure);
        if was_linked && failure.is_lost() && !round.renewed.contains(&address) {
            round.renewed.push(address);
            round.again.extend(jobs);
            return;
        }
        self.is_stale |= failure.asks_for_topology();
        if self.topology.as_ref().is_some_and(Topology::is_cluster) && failure.asks_for_topology() {
            round.unreached.push((address, failure, jobs));
        } else {
            round.failure.get_or_insert(failure);
        }
    }

    /// Finds another server for commands whose own can't be reached: a replica may have taken its place.
    ///
    /// # Errors
    /// Why the server can't be reached, if there is none.
    fn reroute(
        &mut self,
        unreached: Vec<(Address, Failure, Vec<Job>)>,
        commands: &[Command<'_>],
        deadline: Deadline,
    ) -> Result<Vec<Job>, Failure> {
        let config = Rc::clone(&self.config);
        let mut again = Vec::new();
        for (address, failure, jobs) in unreached {
            let Ok(topology) = self.topology(deadline) else { return Err(failure) };
            for job in jobs {
                let owner =
                    commands.get(job.number).and_then(|command| topology.owner(&config.key_prefix, command.key()));
                if owner == Some(&address) && job.redirect.is_none() {
                    return Err(failure);
                }
                again.push(Job { number: job.number, redirect: None });
            }
        }
        Ok(again)
    }
}
