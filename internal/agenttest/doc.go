// SPDX-License-Identifier: Apache-2.0

// Package agenttest is a Kata agent without a guest, for tests and the demo: a real ttrpc server with all methods of the API,
// over a state of sandbox, containers and processes that behaves as the agent's does.
//
// Its habits are the real one's:
//
//   - CreateSandbox empties the directory it takes for /run/kata-containers
//     ([Options.SharedDir]);
//   - a listener does not replace a stale socket, and leaves its own behind;
//   - a handler's context ends when its connection does;
//   - WaitProcess, ReadStdout, ReadStderr and GetOOMEvent block; reading returns
//     nothing when the process has ended and all is read;
//   - a process that was waited for is forgotten, its output with it;
//   - SIGTERM ends the first process of a container as SIGKILL does;
//   - the agent ends after DestroySandbox ([Options.EndsWithSandbox]);
//   - WriteStdin without data closes the standard input;
//   - CopyFile outside /run/kata-containers/shared/containers fails;
//   - errors carry its codes: NOT_FOUND for a process that is not there,
//     INVALID_ARGUMENT for a container that is not in Wait, Signal, Read, CloseStdin,
//     TtyWinResize, Stats, Update, Pause and Resume, INTERNAL for the rest.
//
// Processes are Go functions ([Program]) chosen by the name of their executable. What needs a kernel is left out: mounts,
// devices, cgroups, files and network links are accepted and dropped, or kept and returned.
//
// A test can see the requests ([Agent.Requests], [Agent.Calls], [Agent.Await]), make calls fail or wait ([Agent.Fail],
// [Agent.Block], [Agent.BlockReply]), and end the agent at once ([Agent.Kill]); it may be started again, with no memory of its
// containers.
package agenttest
