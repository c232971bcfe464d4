// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// snapshots is OPA's storage over immutable documents: a transaction is itself the snapshot that it reads. So one prepared
// query serves every state and every policy_data, and neither a writer nor a slow evaluation ever holds up another.
type snapshots struct {
	storage.WritesNotSupported
	storage.PolicyNotSupported
	storage.TriggersNotSupported
}

// snapshot is one version of the whole data document; nil is the empty one.
type snapshot struct{ root ast.Object }

// ID implements storage.Transaction.
func (*snapshot) ID() uint64 { return 0 }

func (snapshots) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return &snapshot{root: ast.NewObject()}, nil
}

func (snapshots) Commit(context.Context, storage.Transaction) error { return nil }

func (snapshots) Abort(context.Context, storage.Transaction) {}

func (snapshots) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr}
}

// Get implements topdown.BaseCache: a snapshot is at hand as it is, and needs no cache that would be filled for each evaluation.
func (s *snapshot) Get(ref ast.Ref) ast.Value {
	if len(ref) < 2 {
		return nil
	}
	v, err := s.root.Find(ref[1:])
	if err != nil {
		return nil
	}
	return v
}

// Put implements topdown.BaseCache.
func (*snapshot) Put(ast.Ref, ast.Value) {}

var errNotFound = &storage.Error{Code: storage.NotFoundErr}

// Read returns the whole document, which Get leaves to it, and nothing that Get has not found: the elements of a path are strings,
// and "0" would be taken for the index of an array, where policy_data as a rule has no such key.
func (snapshots) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	s, ok := txn.(*snapshot)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr}
	}
	if len(path) > 0 {
		return nil, errNotFound
	}
	return s.root, nil
}
