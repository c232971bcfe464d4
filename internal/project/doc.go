// SPDX-License-Identifier: Apache-2.0

// Package project holds the tests of the project as a whole: what may be imported from outside and what that links, the lists
// of places in CONTRIBUTING.md, the head of each file. It has no code of its own.
package project
