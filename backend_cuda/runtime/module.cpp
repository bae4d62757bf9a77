#include "backend_cuda/runtime/module.h"

namespace mlxlite::cuda {

Module::Module(const void* cubin) {
    make_current();
    CUmodule module = nullptr;
    driver.cuModuleLoadData(&module, cubin);
    handle_ = std::make_shared<ModuleHandle>(module);
}

std::shared_ptr<Function> Module::function(const std::string& name, int dynamic_shared_max) const {
    make_current();
    return labelled(name, [&] {
        auto f = std::make_shared<Function>();
        f->module = handle_;
        f->name = name;
        driver.cuModuleGetFunction(&f->handle, handle_->get(), name.c_str());
        auto read = [&](int* value, CUfunction_attribute which) { driver.cuFuncGetAttribute(value, which, f->handle); };
        read(&f->registers, CU_FUNC_ATTRIBUTE_NUM_REGS);
        read(&f->local_bytes, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
        read(&f->static_shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
        read(&f->max_threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
        f->dynamic_shared_max = dynamic_shared_max;
        if (dynamic_shared_max > 0)
            driver.cuFuncSetAttribute(f->handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_shared_max);
        return f;
    });
}

}  // namespace mlxlite::cuda
