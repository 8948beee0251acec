"""KVM/arm64: virtual GIC, vCPUs, PSCI and the virtual timer, as Linux's arch/arm64/kvm does them."""
