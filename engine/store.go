package engine

import (
	"context"
	"strconv"

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

var errNotFound = &storage.Error{Code: storage.NotFoundErr}

// Get implements topdown.BaseCache: a snapshot is at hand as it is, and needs no cache that would be filled for each evaluation.
// What it does not find, Read is asked for.
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

// Read returns the ast.Value at path.
func (snapshots) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	s, ok := txn.(*snapshot)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr}
	}
	var at ast.Value = s.root
	for _, key := range path {
		var next *ast.Term
		switch v := at.(type) {
		case ast.Object:
			next = v.Get(ast.InternedTerm(key))
		case *ast.Array:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < v.Len() && strconv.Itoa(i) == key {
				next = v.Elem(i)
			}
		}
		if next == nil {
			return nil, errNotFound
		}
		at = next.Value
	}
	return at, nil
}
