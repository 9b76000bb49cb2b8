//! Calls of a class's objects, in either dialect.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use snapkeep_api::{Error, ErrorKind, Result};

use super::driver::{Driver, Regions};
use super::value::{Arg, Returned};
use super::{Dialect, STORAGE, Shared, broken};

/// Debian's, whose modules belong to it.
const PERL: &str = "/usr/bin/perl";

/// In which context a caller calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context {
    Void,
    Scalar,
    List,
}

impl Context {
    fn word(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Scalar => "scalar",
            Self::List => "list",
        }
    }
}

/// A call of a method.
pub(crate) struct Call {
    pub(crate) object: u64,
    pub(crate) method: &'static str,
    pub(crate) context: Context,
    pub(crate) args: Vec<Arg>,
    /// Whether what it returns goes on to commands, which a tainted value ends.
    pub(crate) clean: bool,
    /// The user namespace in which a child makes it, as a path, if it is not the process itself.
    pub(crate) namespace: Option<String>,
}

impl Call {
    /// A call of the first object, in void context.
    pub(crate) fn void(method: &'static str, args: Vec<Arg>) -> Self {
        Self {
            object: 0,
            method,
            context: Context::Void,
            args,
            clean: false,
            namespace: None,
        }
    }

    /// A call of the first object, in scalar context, for a value that has to be clean.
    pub(crate) fn scalar(method: &'static str, args: Vec<Arg>) -> Self {
        Self {
            context: Context::Scalar,
            clean: true,
            ..Self::void(method, args)
        }
    }
}

/// A process like one of Proxmox VE's tasks, and its objects of the class.
pub(crate) struct Session {
    driver: Driver,
    pub(crate) shared: Arc<Shared>,
}

impl Session {
    /// Starts the process, loads the class and makes a first object of it, number 0.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let class = &shared.class;
        let mut command = Command::new(PERL);
        command.arg("-T");
        for folder in &class.include {
            command.arg("-I").arg(folder);
        }
        command
            .arg(shared.place.driver())
            .env_clear()
            .current_dir("/");
        let mut session = Self {
            driver: Driver::start(command, class.patience)?,
            shared: Arc::clone(shared),
        };
        for class in class.storage_plugin.iter().chain([&class.class]) {
            session.ask("load", &json!({"method": "load", "class": class}))?;
        }
        session.make(0)?;
        Ok(session)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.shared.class.dialect
    }

    /// Makes an object of the class, with this number.
    pub(crate) fn make(&mut self, object: u64) -> Result<()> {
        let class = &self.shared.class;
        let mut section = vec![
            ("type".to_owned(), Arg::text(STORAGE)),
            (
                "content".to_owned(),
                Arg::Hash(vec![("backup".to_owned(), Arg::Number(1))]),
            ),
        ];
        for (name, value) in &class.properties {
            section.retain(|(known, _)| known != name);
            section.push((name.clone(), Arg::text(self.shared.place.filled(value)?)));
        }
        let plugin = (class.storage_plugin.as_deref()).unwrap_or("PVE::Storage::Plugin");
        let args = [Arg::text(plugin), Arg::Hash(section), Arg::text(STORAGE)];
        let args: Vec<_> = args.iter().map(Arg::json).collect();
        let class = class.class.clone();
        let request = json!({"method": "new", "class": class, "object": object, "args": args});
        self.ask("new", &request)
    }

    fn ask(&mut self, what: &'static str, request: &Json) -> Result<()> {
        let asked = self.driver.ask(what, request, &mut Regions::new())?;
        asked.map(drop).map_err(|why| died(what, &why))
    }

    /// What a call returned, one value unless it is in list context; the class's error if it died.
    pub(crate) fn attempt(
        &mut self,
        call: &Call,
        regions: &mut Regions,
    ) -> Result<std::result::Result<Vec<Returned>, String>> {
        let args: Vec<_> = call.args.iter().map(Arg::json).collect();
        let mut request = json!({"method": call.method, "object": call.object, "clean": u8::from(call.clean),
                             "context": call.context.word(), "args": args});
        if let Some(path) = &call.namespace {
            request["namespace"] = Json::from(path.as_str());
        }
        let told = match self.driver.ask(call.method, &request, regions)? {
            Ok(told) => told,
            Err(why) => return Ok(Err(why)),
        };
        let Json::Array(values) = &told["a"] else {
            return Ok(Ok(Vec::new()));
        };
        let values = values.iter().map(Returned::parse);
        Ok(Ok(values.collect::<Result<_>>()?))
    }

    /// What a call returned, in list context all of it.
    pub(crate) fn list(&mut self, call: &Call) -> Result<Vec<Returned>> {
        let attempted = self.attempt(call, &mut Regions::new())?;
        attempted.map_err(|why| died(call.method, &why))
    }

    /// What a call returned.
    pub(crate) fn call(&mut self, call: &Call) -> Result<Returned> {
        let mut values = self.list(call)?;
        Ok(values.pop().unwrap_or(Returned::Undefined))
    }
}

/// The error of a method that died.
pub(crate) fn died(method: &str, why: &str) -> Error {
    Error::new(ErrorKind::Source, format!("{method} died: {why}"))
}

/// The error of a method that returned what its caller cannot use.
pub(crate) fn wrong(method: &str, what: &str) -> Error {
    broken(format!("{method} returned {what}"))
}

/// The info at the end of a call's arguments.
pub(crate) fn info(pairs: Vec<(&str, Arg)>) -> Arg {
    let pairs = pairs.into_iter();
    Arg::Hash(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
}
