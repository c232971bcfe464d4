// SPDX-License-Identifier: Apache-2.0

// Package rest answers the part of OPA's REST API that agents of the sidecar era use, and people with curl beside them, on a
// loopback address:
//
//	GET, POST          /v1/data/{path...}    a decision or any other document of the policy; {} when it is undefined
//	POST               /v0/data/{path...}    the same with the body as input; 404 when it is undefined
//	PUT, GET, DELETE   /v1/policies/{id}     the one policy
//	GET                /v1/policies          a list of one
//	GET                /health
//
// Status codes and documents are those of OPA 1.22 run with --v0-compatible. Nothing else of OPA is served.
//
// A policy comes in by the chain of [portcullis/engine/binding] like one that SetPolicy brings, with one exception: the text of
// the default policy, which such agents send first, is in force from the start. Such agents ignore the answer to a PUT. So
// after a refused one nothing is allowed any more, and every document is undefined, AllowRequestsFailingPolicy with them.
//
// Containers share the guest's network namespace. [Listen] therefore asks the kernel whose socket the other end is, and
// hangs up on a process of another user or in a container's cgroup.
package rest
