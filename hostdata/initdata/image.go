// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A disk image is the magic, the length of the gzip data as 8 bytes little-endian,
// the gzip data, and zeros to the end of the sector.
const (
	magic      = "initdata"
	headerSize = len(magic) + 8
	sectorSize = 512
)

// ReadImage reads the document of a disk image, front to back and each byte once, at most 1 MiB. Without the magic it is
// ErrNoDisk. A length beyond 1 MiB, a non-zero byte in the rest of the last sector or an image that ends early is ErrInvalid;
// what the reader fails with is ErrRead.
func ReadImage(r io.Reader) (*Document, error) {
	var header [headerSize]byte
	switch n, err := io.ReadFull(r, header[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if n < len(magic) || string(header[:len(magic)]) != magic {
			return nil, fmt.Errorf("read initdata image: %w", ErrNoDisk)
		}
		return nil, fmt.Errorf("read initdata image: %w: it ends in the header", ErrInvalid)
	case err != nil:
		return nil, fmt.Errorf("read initdata image: %w: %w", ErrRead, err)
	}
	if string(header[:len(magic)]) != magic {
		return nil, fmt.Errorf("read initdata image: %w", ErrNoDisk)
	}
	compressed, err := readPayload(r, binary.LittleEndian.Uint64(header[len(magic):]))
	if err != nil {
		return nil, fmt.Errorf("read initdata image: %w", err)
	}
	doc, err := decompress(compressed)
	if err != nil {
		return nil, fmt.Errorf("read initdata image: %w", err)
	}
	return doc, nil
}

// readPayload reads length bytes and the zeros behind them.
func readPayload(r io.Reader, length uint64) ([]byte, error) {
	if length > maxCompressed {
		return nil, fmt.Errorf("%w: %d bytes compressed, at most %d", ErrInvalid, length, maxCompressed)
	}
	payload := make([]byte, int(length)+padding(int(length)))
	switch _, err := io.ReadFull(r, payload); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it ends early", ErrInvalid)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrRead, err)
	}
	compressed, pad := payload[:length], payload[length:]
	if len(bytes.Trim(pad, "\x00")) > 0 {
		return nil, fmt.Errorf("%w: the sector is not filled with zeros", ErrInvalid)
	}
	return compressed, nil
}

// padding returns how many zeros follow length bytes of gzip data.
func padding(length int) int {
	return (sectorSize - (headerSize+length)%sectorSize) % sectorSize
}

// WriteImage writes the document as a disk image, a whole number of 512-byte sectors.
func (d *Document) WriteImage(w io.Writer) error {
	compressed, err := d.compress()
	if err != nil {
		return fmt.Errorf("write initdata image: %w", err)
	}
	image := make([]byte, 0, headerSize+len(compressed)+sectorSize)
	image = append(image, magic...)
	image = binary.LittleEndian.AppendUint64(image, uint64(len(compressed)))
	image = append(image, compressed...)
	image = append(image, make([]byte, padding(len(compressed)))...)
	if _, err := w.Write(image); err != nil {
		return fmt.Errorf("write initdata image: %w", err)
	}
	return nil
}
