//! The command line as its users run it.

use std::process::{Command, Output};

use crate::{Name, World, services::binary};

impl World {
    /// Runs `windlass` as the user of this token.
    pub fn windlass_as(&self, token: &str, args: &[&str]) -> Output {
        Command::new(binary("windlass"))
            .args(args)
            .env("WINDLASS_ADDR", self.address(Name::Api))
            .env("WINDLASS_WC_ADDR", self.address(Name::Wc))
            .env("WINDLASS_TOKEN", token)
            .current_dir(self.dir())
            .output()
            .expect("the windlass program")
    }

    /// Runs `windlass` as the admin. It must succeed; returns what it printed.
    #[track_caller]
    pub fn windlass(&self, args: &[&str]) -> Vec<u8> {
        let output = self.windlass_as(&self.token, args);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}
