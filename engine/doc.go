// SPDX-License-Identifier: Apache-2.0

// Package engine decides one request at a time against the workload owner's Rego policy.
//
// A [Compiler] turns policy text into a [Policy], which is immutable. An [Engine] holds the active policy and the state
// it has built up, the document {"pstate": {...}} that rules read as data.pstate. [Engine.Judge] evaluates
// data.agent_policy.<entry point> and gives a [Verdict].
//
// A decision is the boolean true, or {"allowed": true, "ops": [JSON Patch]}. Everything else denies: false, undefined, another
// type, a malformed object, an evaluation error, an evaluation that outlasts its deadline.
//
// Requests whose decision carries no ops are decided concurrently on an immutable snapshot and wait for nobody. A verdict with
// ops holds the state until the caller says what became of the request: [Verdict.Commit], [Verdict.Discard], or
// [Verdict.Doubt] when nobody can know. After a doubt both states are possible, and a request is allowed only where it is
// allowed in each of them.
package engine
