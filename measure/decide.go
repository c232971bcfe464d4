// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"

	"portcullis/measure/eventlog"
)

// logView is what the log says before any repair: the records of the register's own kind, and whether the last of them is in doubt.
type logView struct {
	records []eventlog.Record
	marked  bool
}

// view takes from a log what is of the configuration's kind. The mark is about the log's last record, of whichever kind that is.
func (c *Config) view(f *eventlog.File) logView {
	own, other := eventlog.Split(f.Records())
	if c.Pod {
		own, other = other, own
	}
	last := len(own) > 0 && own[len(own)-1].Num == uint64(len(f.Records())-1)
	return logView{own, f.Marked() && (last || len(other) == 0)}
}

// judge holds the PCR against the log: how many of the records are in the register, and how the two stand. A value that neither
// the whole log nor, if it is marked, the log without its last record explains is an [UnexpectedError].
func judge(cfg *Config, values eventlog.Values, log logView) (keep int, state State, err error) {
	all, err := eventlog.Replay(log.records, cfg.PCR)
	if err != nil {
		return 0, "", logError(err)
	}
	keep = len(log.records)
	if log.marked && keep > 0 && !values.Equal(all) {
		before, err := eventlog.Replay(log.records[:keep-1], cfg.PCR)
		if err != nil {
			return 0, "", logError(err)
		}
		if values.Equal(before) {
			keep--
			all = before
		}
	}
	if otherBoot(cfg.BootID, log.records) {
		return 0, "", unexpected(cfg.PCR, values, all, "the log is of another boot")
	}
	switch {
	case keep > 0 && values.Equal(all):
		return keep, Measured, nil
	case keep > 0 && values.Zero():
		return 0, "", unexpected(cfg.PCR, values, all, "the log has events and the PCR has none: the TPM was reset or replaced")
	case keep > 0:
		return 0, "", unexpected(cfg.PCR, values, all, "the log does not lead to it: another program extends this PCR")
	case values.Zero():
		return 0, Empty, nil
	case cfg.ExpectPreextended:
		return 0, Preextended, nil
	}
	return 0, "", unexpected(cfg.PCR, values, nil, "extended by another program, or our log is gone; a reboot clears it")
}

// otherBoot says whether a record is not of this boot.
func otherBoot(this string, records []eventlog.Record) bool {
	for _, r := range records {
		if this != "" && r.Content.BootID != this {
			return true
		}
	}
	return false
}

// judgePreextended holds a PCR that another unit extended against the digest: the sha256 bank must have taken it, every other bank
// must have taken it too or nothing. It returns the digests that are in the register.
func judgePreextended(p *pcr, values eventlog.Values, digest []byte) ([]eventlog.Digest, error) {
	digests, err := p.digests(Event{Digest: digest})
	if err != nil {
		return nil, err
	}
	var taken []eventlog.Digest
	for _, d := range digests {
		zero := make([]byte, eventlog.Size(d.HashAlg))
		want, err := eventlog.Extend(d.HashAlg, zero, d.Digest)
		if err != nil {
			return nil, err
		}
		switch got := values[d.HashAlg]; {
		case bytes.Equal(got, want):
			taken = append(taken, d)
		case d.HashAlg == "sha256" || !bytes.Equal(got, zero):
			return nil, &UnexpectedError{PCR: p.index, Bank: d.HashAlg, Got: got, Want: want,
				Why: "the unit that extends first measured something else"}
		}
	}
	return taken, nil
}

// unexpected names the first bank that differs, sha256 before the others.
func unexpected(pcr uint32, got, want eventlog.Values, why string) error {
	for _, bank := range []string{"sha256", "sha384", "sha512", "sha1"} {
		g, w := got[bank], want[bank]
		if g == nil {
			g = make(eventlog.Hex, eventlog.Size(bank))
		}
		if w == nil {
			w = make(eventlog.Hex, eventlog.Size(bank))
		}
		if !bytes.Equal(g, w) {
			return &UnexpectedError{PCR: pcr, Bank: bank, Got: g, Want: w, Why: why}
		}
	}
	return &UnexpectedError{PCR: pcr, Bank: "sha256", Got: got["sha256"], Want: want["sha256"], Why: why}
}
