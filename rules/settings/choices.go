// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"reflect"

	"portcullis/rules/policydata"
)

// choices are the values of the types that have few.
var choices = map[reflect.Type][]string{
	reflect.TypeFor[Annotation]():           {string(Initdata), string(Policy)},
	reflect.TypeFor[Secrets]():              {string(SecretsRefuse), string(SecretsHash), string(SecretsUnbound)},
	reflect.TypeFor[Order]():                {string(OrderFree), string(OrderInit), string(OrderEnforced)},
	reflect.TypeFor[policydata.Level]():     {string(policydata.Required), string(policydata.Optional), string(policydata.Free)},
	reflect.TypeFor[policydata.ImageFrom](): {string(policydata.GuestPull), string(policydata.Layers), string(policydata.Host)},
	reflect.TypeFor[policydata.MountFrom](): {string(policydata.MountExact), string(policydata.MountShared), string(policydata.MountStorage), string(policydata.MountLocal)},
}
