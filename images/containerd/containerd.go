// SPDX-License-Identifier: Apache-2.0

// Package containerd finds images that a containerd daemon holds.
//
// It speaks to the daemon's image and content services directly. The client library of containerd would pull, unpack and
// run as well; the generated services alone add 0.9 MB to a program that has gRPC. So an image must have been pulled
// before (crictl pull, ctr -n k8s.io images pull), with its layers kept: a daemon configured with
// discard_unpacked_layers has only what the configuration needs.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"portcullis/images"
)

const (
	// Namespace is where the kubelet's images are.
	Namespace = "k8s.io"

	namespaceHeader = "containerd-namespace"
)

// Store is an [images.Store] over a containerd daemon. It may be used by any number of goroutines.
type Store struct {
	conn      *grpc.ClientConn
	namespace string
	images    imagesapi.ImagesClient
	content   contentapi.ContentClient
}

var _ images.Store = (*Store)(nil)

// New makes a store over the daemon at socket, a path, and its images of namespace. It connects at the first question.
func New(socket, namespace string) (*Store, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", socket, err)
	}
	return &Store{conn, namespace, imagesapi.NewImagesClient(conn), contentapi.NewContentClient(conn)}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.conn.Close() }

func (s *Store) in(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, namespaceHeader, s.namespace)
}

// Resolve finds an image by its normalised name, as the kubelet pulls it. A pinned one is found by its digest, whatever it
// is called and whether it is an index or a manifest below one.
func (s *Store) Resolve(ctx context.Context, ref images.Reference) (images.Target, error) {
	if ref.Pinned() {
		return s.resolveDigest(ctx, ref)
	}
	got, err := s.images.Get(s.in(ctx), &imagesapi.GetImageRequest{Name: ref.String()})
	if status.Code(err) == codes.NotFound {
		return images.Target{}, fmt.Errorf("containerd: %w: %s", images.ErrNotFound, ref)
	}
	if err != nil {
		return images.Target{}, fmt.Errorf("containerd: looking up %s: %w", ref, err)
	}
	return images.Target{Descriptor: descriptor(got.GetImage().GetTarget())}, nil
}

func (s *Store) resolveDigest(ctx context.Context, ref images.Reference) (images.Target, error) {
	got, err := s.content.Info(s.in(ctx), &contentapi.InfoRequest{Digest: ref.Digest.String()})
	if status.Code(err) == codes.NotFound {
		return images.Target{}, fmt.Errorf("containerd: %w: %s", images.ErrNotFound, ref)
	}
	if err != nil {
		return images.Target{}, fmt.Errorf("containerd: looking up %s: %w", ref, err)
	}
	return images.Target{Descriptor: ocispec.Descriptor{Digest: ref.Digest, Size: got.GetInfo().GetSize()}}, nil
}

func descriptor(d *types.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.GetMediaType(), Digest: digest.Digest(d.GetDigest()), Size: d.GetSize()}
}

// Fetch streams content from the daemon.
func (s *Store) Fetch(ctx context.Context, ref images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(s.in(ctx))
	stream, err := s.content.Read(ctx, &contentapi.ReadContentRequest{Digest: d.Digest.String()})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("containerd: reading %s: %w", d.Digest, err)
	}
	return &reader{stream: stream, cancel: cancel, ref: ref, digest: d.Digest}, nil
}

// reader is content as it arrives in messages.
type reader struct {
	stream grpc.ServerStreamingClient[contentapi.ReadContentResponse]
	cancel context.CancelFunc
	ref    images.Reference
	digest digest.Digest
	rest   []byte
	offset int64
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case status.Code(err) == codes.NotFound:
			return 0, fmt.Errorf("containerd has %s but not its content %s: pull it again, with discard_unpacked_layers off and "+
				"for all platforms if an index is wanted: %w", r.ref, r.digest, err)
		case err != nil:
			return 0, fmt.Errorf("containerd: reading %s: %w", r.digest, err)
		case m.GetOffset() != r.offset:
			return 0, fmt.Errorf("containerd: reading %s: got offset %d, want %d", r.digest, m.GetOffset(), r.offset)
		}
		r.rest = m.GetData()
		r.offset += int64(len(r.rest))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.cancel()
	return nil
}
