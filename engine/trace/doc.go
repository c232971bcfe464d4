// SPDX-License-Identifier: Apache-2.0

// Package trace is the decision log: policyd writes it, policyctl reads it.
//
// Each line is one JSON object {kind, request, allowed, reason, time}: the policy entry point, the whole input document with all
// of its bytes, what was decided, why it was denied, and when (RFC 3339). A reader that knows only {kind, request} can read it. A
// request that the agent gets has an id besides, and a line {id, agent, error, time} says later what the agent answered: done,
// refused or unknown. A line {observed, request, time} holds an answer that the policy was shown. The log holds secrets of the
// workload, so it is for debugging alone and is off unless it is asked for.
package trace
