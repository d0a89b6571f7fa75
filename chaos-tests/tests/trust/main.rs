//! What somebody with a member's key can say, over real connections: the
//! attacker has the key and a host of its own, and sends what it likes.

mod attacker;
mod joining;
mod leading;
mod logins;
mod rules;
mod telling;
